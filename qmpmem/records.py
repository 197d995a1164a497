"""The base of every record that passes between modules.

A record is frozen and keyword-only. What is not known is ``None``, never 0 and never a magic
number. msgspec makes records cheap to define, to read and to write as JSON. Type checkers do not
inherit ``frozen``, so each record repeats it.

Records never refer to each other in a circle: a frozen record refers to what was there before it.
So the garbage collector need not look at them (gc=False), which with thousands of guests is a tenth
of a round's work.
"""

from typing import Final

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An immutable record."""


replace: Final = msgspec.structs.replace
"""Return a copy of a record with some fields changed. A function of our own around it would take as
long as the copy."""
