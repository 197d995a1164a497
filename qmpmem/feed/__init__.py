"""Rounds to be looked at: as they come, of the past, or of guests that no agent looks after.

records    one round, whatever it comes from (pure)
live       rounds as they come: from the agent, and from the guests where none runs
past       rounds of the journal: at a time, the one before, the one after, a stretch
guests     a round without an agent: what the guests and the host report themselves

Theory of operation:
    A screen and a page show a `Round` and know nothing of its source, so that what is live, what is
    stopped and what is past is drawn by the same code. Where no agent decided, `Round.plan` is
    None: then there is no state of the host, no reserve and no target that could be shown.
"""

from qmpmem.feed.live import live
from qmpmem.feed.past import Past
from qmpmem.feed.records import Lost, Round, Source, round_of

__all__ = ["Lost", "Past", "Round", "Source", "live", "round_of"]
