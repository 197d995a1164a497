"""How memory is shared out. Pure: what was seen goes in, what to do comes out.

engine    decide(): one round, from `Snapshot` to `Plan`
history   what a round leaves for the next
host      the reserve, and how short of memory the host is
demand    what a guest works with, wants, and suffers
conduct   guests that do not play along
shares    what each is entitled to
moves     from wishes to targets: floors, donors, steps, phases
ksm       when merging is worth its effort
"""

from qmpmem.policy.engine import decide
from qmpmem.policy.history import History

__all__ = ["History", "decide"]
