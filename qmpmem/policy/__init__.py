"""How memory is shared out. Pure: what was seen goes in, what to do comes out.

engine           decide(): one round, from `Snapshot` to `Plan`
state            what a round leaves for the next
host             the reserve, and how short of memory the host is
habits           what a guest usually uses at this hour of the day
demand           what a guest works with, wants, and suffers
cache            what its page cache is worth
progress         what it was told, and how far it got with that
behaviour        guests that do not do as they are told
assess           one guest by itself: its limits, its trend, and what follows from them
cases            one guest, and one round, with all that was worked out about it
shares           what each guest is entitled to
goals            what each guest should have by itself
reach            how far each guest may be shrunk
allocation       which guests give, and which guests get
commands         which of that is worth a command now
cadence          how often guests are asked what they use
reclaim          what the host reclaims of guests whose balloons give nothing
ksm              when merging is worth its effort
judgement_cache  judgements that are kept from round to round
tracked_numbers  numbers that note what they are compared with
constants_table  the numbers of all of these
"""

from qmpmem.policy.engine import decide
from qmpmem.policy.state import History

__all__ = ["History", "decide"]
