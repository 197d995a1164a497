"""How memory is shared out. Pure: what was seen goes in, what to do comes out.

engine    decide(): one round, from `Snapshot` to `Plan`
history   what a round leaves for the next
host      the reserve, and how short of memory the host is
habits    what a guest usually uses at this hour of the day
demand    what a guest works with, wants, and suffers
cache     what its page cache is worth
progress  what it was told, and how far it got with that
conduct   guests that do not play along
cases     one guest, and one round, with all that was worked out about it
shares    what each is entitled to
goals     what each should have by itself
reach     how far each may be taken
allocation  who gives and who gets
commands  which of that is worth a command now
cadence   how often guests are asked what they use
ksm       when merging is worth its effort
"""

from qmpmem.policy.engine import decide
from qmpmem.policy.state import History

__all__ = ["History", "decide"]
