"""What `qmpmem ksm status` shows: records only. The field names are the keys of ``--json``."""

from collections.abc import Mapping, Sequence

from qmpmem.ksm.verdict import Rates, Verdict
from qmpmem.model.ksm import KsmState
from qmpmem.records import Record
from qmpmem.units import Bytes


class GuestMerging(Record, frozen=True):
    """What merging does for one guest."""

    id: str
    name: str
    pid: int | None
    domain: str | None
    mergeable: bool | None
    """Whether its memory is offered for merging."""
    reason: str | None
    """Why not, or why that is not known."""
    merged: Bytes | None
    """Memory of it that it shares with others."""
    profit: Bytes | None
    """What that saves the host, less the kernel's own memory for it; only root may know."""
    rss: Bytes | None
    """What it would cost the host if it shared nothing."""
    proportional: Bytes | None
    """What it costs the host, with each shared page counted in parts (PSS)."""


class Report(Record, frozen=True):
    """KSM on this host."""

    state: KsmState | None
    """None: this kernel cannot merge pages."""
    saved: Bytes | None
    profit: Bytes | None
    rates: Rates | None
    """None while nothing is scanned."""
    verdict: Verdict | None
    owner: str
    """What set KSM up: ``qmpmem``, ``qmpmem's agent`` (one that is not root), ``another program``,
    ``the kernel`` (all is as it starts), or, where there is a `problem`, ``unknown``."""
    since: float | None
    """When qmpmem first changed something, in seconds since 1970."""
    foreign: Mapping[str, str]
    """What another program changed after us, and what it is now."""
    rival: str | None
    """A process that is known to steer KSM."""
    strangers: Sequence[Sequence[str]]
    """Guests that may merge with each other though their domains differ, by domain."""
    guests: Sequence[GuestMerging]
    problem: str | None = None
    """Why it is not known what set KSM up."""
