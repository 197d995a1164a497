"""The configuration: files in, one frozen `Config` or every mistake out.

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
