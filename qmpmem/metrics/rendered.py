"""A round as bytes, in each form that is asked for; each is made once."""

from gzip import compress

from qmpmem.metrics import text
from qmpmem.metrics.content_type import OPEN, Form
from qmpmem.metrics.totals import Totals
from qmpmem.model.round import Tick
from qmpmem.records import replace


class RenderedMetrics:
    """The metrics after one round.

    Args:
        tick: the round; None: there was none yet.
        totals: the sums after it.
        version: of the agent.
    """

    def __init__(self, tick: Tick | None, totals: Totals, version: str) -> None:
        self.tick = tick
        self._totals = totals
        self._version = version
        self._blocks: text.Blocks | None = None
        self._forms: dict[Form, bytes] = {}

    def known(self, form: Form) -> bytes | None:
        """Return the bytes of a form that was made before."""
        return self._forms.get(form)

    def make(self, form: Form) -> bytes:
        """Return the bytes of a form. Takes some ms for 500 guests; by one thread at a time."""
        if form not in self._forms:
            self._forms[form] = self._make(form)
        return self._forms[form]

    def _make(self, form: Form) -> bytes:
        if form.packed:
            return compress(self.make(replace(form, packed=False)), compresslevel=1, mtime=0)
        if self._blocks is None:
            self._blocks = text.blocks(self.tick, self._totals, self._version)
        write = text.open_metrics if form.media == OPEN else text.plain
        return write(self._blocks)
