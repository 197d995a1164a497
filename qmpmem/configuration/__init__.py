"""The configuration: files in, one frozen `Config` or every mistake out.

files          which files are read, and how
merge          several files' texts as one `Config`, or all that is wrong with them
file_values    what one file gives
toml_document  a TOML file as values, with the line on which each stands
keys           every key: where it stands, which field it sets, what it takes
value_types    how each kind of value is read and written
rules          rules that are never reached, or contradict themselves
errors         what is wrong with a configuration, and where
as_toml        a configuration as a file that would give the same again

All is pure but `files` and `defaults`, which read.
"""

from qmpmem.configuration.errors import Mistake, Place
from qmpmem.configuration.files import load, read, read_again
from qmpmem.configuration.merge import Judgement, Reload, Source, judge, reload, settled

__all__ = [
    "Judgement",
    "Mistake",
    "Place",
    "Reload",
    "Source",
    "judge",
    "load",
    "read",
    "read_again",
    "reload",
    "settled",
]
