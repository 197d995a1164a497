"""What the administrator wants: one frozen record, and where each default comes from.

Rules of this file:
    Pure. Files are read and judged elsewhere (`qmpmem.configuration`).
    A default stands in one place, here, with words that tell what it is and where it is from.
    `qmpmem config show` and the tables of the manual (config.md) show the same words.
"""

from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Final, Literal

from msgspec import Meta

from qmpmem.model.names import matches
from qmpmem.records import Record
from qmpmem.units import MIB, PAGE, Bytes, Share

Class = Literal["default", "database", "desktop", "ci"]
OnStop = Literal["keep", "relax", "release"]
Size = Bytes | Share
"""Of a guest: so much, or so much of what it was started with."""

MINIMUM_PERCENT: Final = 35
"""Percent of its maximum that a guest keeps by default: ESX caps the balloon at 65 %
(Mem.CtlMaxPercent)."""
MINIMUM_LEAST: Final = Bytes(128 * MIB)
"""Least that a guest keeps by default: a kernel needs so much of even a small guest."""

SHARES: Final = 1000
"""A guest's weight by default."""


class Preset(Record, frozen=True):
    """What a class of guests gets by default."""

    minimum_percent: int = MINIMUM_PERCENT
    shares: int = SHARES
    headroom_percent: int = 20
    """Percent of what a guest works with. Hyper-V's buffer and MOM's are 20 %; Neon keeps about a
    third."""


PRESETS: Final[dict[Class, Preset]] = {
    "default": Preset(),
    "database": Preset(minimum_percent=60, shares=2000, headroom_percent=30),
    "desktop": Preset(minimum_percent=40, shares=1000, headroom_percent=25),
    "ci": Preset(minimum_percent=25, shares=500, headroom_percent=20),
}
"""What a guest of each class gets where no rule sets it: minimum and headroom in percent."""


def said(meaning: str, *, source: str | None = None, unset: str | None = None) -> Meta:
    """Return the description of a field.

    Args:
        meaning: what the field is.
        source: where its default is from.
        unset: what holds where the field is None.
    """
    return Meta(description=meaning, extra={"source": source, "unset": unset})


class Rule(Record, frozen=True, omit_defaults=True):
    """What holds for the guests whose name or id matches; the first rule that matches counts."""

    match: Annotated[str, said("which guests: a pattern, as of the shell, of their names or ids")]
    minimum: Annotated[
        Size | None, said("never less than this is left to the guest", unset="as its class")
    ] = None
    maximum: Annotated[
        Size | None, said("never more than this is given to it", unset="what it was started with")
    ] = None
    current: Annotated[
        Size | None,
        said(
            "what it starts with, of its memory; it takes the rest as it needs it (deflate-on-oom)",
            unset="what it was started with",
        ),
    ] = None
    shares: Annotated[
        int | None,
        said("its weight, where there is not enough for all", unset="as its class"),
    ] = None
    managed: Annotated[bool, said("whether its memory may be changed at all")] = True
    reclaim: Annotated[
        bool | None,
        said(
            "whether memory of its own cgroup may be reclaimed, where `reclaim` above is on",
            unset="only where the launcher made that cgroup",
        ),
    ] = None
    kind: Annotated[Class, said("what kind of guest it is: sets what is not said here")] = "default"
    domain: Annotated[
        str | None,
        said(
            "guests of different domains do not trust each other, and must not merge pages",
            unset="what it was started with",
        ),
    ] = None


class Adoption(Record, frozen=True, omit_defaults=True):
    """Which QEMUs the agent adopts by itself as soon as they listen at a socket."""

    socket: Annotated[
        str, said("the path of a monitor's socket, or a pattern of paths, as of the shell")
    ]
    name: Annotated[
        str | None,
        said("what to call the guest", unset="the socket's file name, or its directory's"),
    ] = None


class Limits(Record, frozen=True):
    """What holds for one guest."""

    minimum: Bytes
    maximum: Bytes
    shares: int
    headroom_percent: int
    managed: bool
    current: Bytes | None = None
    """What it is to start with, from its minimum to its maximum; None: that is not set."""


class KsmConfig(Record, frozen=True, omit_defaults=True):
    """Whether and how hard the agent merges."""

    managed: Annotated[
        bool,
        said(
            "whether the agent steers the merging of equal pages",
            source="off until you say that the guests belong together: merging leaks "
            "(Dedup Est Machina, Flip Feng Shui)",
        ),
    ] = False
    across_domains: Annotated[
        bool, said("also while guests of different domains may merge", source="as above")
    ] = False
    max_cpu: Annotated[
        int,
        said(
            "percent of a core that ksmd may use, whatever the state of the host",
            source="the kernel's own advisor_max_cpu",
        ),
    ] = 70


class JournalConfig(Record, frozen=True, omit_defaults=True):
    """How much is remembered."""

    path: Annotated[
        str | None,
        said(
            "where decisions are recorded",
            unset="`journal.db` in `$STATE_DIRECTORY`, else in `/var/lib/qmpmem`; a user's in "
            "`~/.local/state/qmpmem`",
        ),
    ] = None
    hours: Annotated[
        float,
        said("how long they are kept", source="a day: last night's trouble is read this morning"),
    ] = 24.0
    days: Annotated[
        float,
        said(
            "how long minutes and hours of them are kept, for `qmpmem plot`; 0: not at all",
            source="last month beside this one",
        ),
    ] = 31.0
    size: Annotated[
        Bytes,
        said("how much is kept at most", source="little beside a single guest"),
    ] = Bytes(64 * MIB)
    learn: Annotated[
        bool,
        said(
            "whether a guest keeps, and is given beforehand, what it used at this hour on other "
            "days, where there is plenty",
            source="only memory to spare goes by it; nothing is taken for it",
        ),
    ] = True


class Config(Record, frozen=True, omit_defaults=True):
    """All settings of the agent."""

    period: Annotated[
        float,
        said(
            "time between two rounds; a quarter of it while the host is in HARD or CRITICAL",
            source="a burst takes a guest's last memory within seconds",
        ),
    ] = 1.0
    reserve: Annotated[
        Bytes | None,
        said(
            "what the host keeps for itself",
            unset="6 % of the first 4 GiB, 4 % of the next 8, 2 % of the next 16, 1 % of the rest",
            source="ESX's sliding scale, Mem.MinFreePct",
        ),
    ] = None
    budget: Annotated[
        Bytes | str | None,
        said(
            "all that guests may use together: a size, or the directory of a cgroup",
            unset="the host, or the tightest limit of a cgroup that the agent and all guests share",
        ),
    ] = None
    on_stop: Annotated[
        OnStop,
        said(
            "how a clean stop leaves the guests: `keep` as they are, `relax` towards what they "
            "work with and 20 %, `release` to all they may have",
            source="room to breathe, and no more than the host has",
        ),
    ] = "relax"
    grace: Annotated[
        float,
        said(
            "time after a start, a reset or an arrival in which only what is free or was never "
            "touched is taken from a guest, unless the host is in HARD or CRITICAL",
            source="ballooning at boot panics guests (CloudStack #7430)",
        ),
    ] = 60.0
    idle_tax: Annotated[
        float,
        said(
            "how much dearer an idle page is than one in use: 1/(1 - tax) times",
            source="ESX's Mem.IdleTax of 75 %: four times",
        ),
    ] = 0.75
    reclaim: Annotated[
        bool,
        said(
            "whether a short host that has swap reclaims memory of guests whose balloons give "
            "none, out of a cgroup of their own and never below their minimum",
            source="such guests would keep all while the others give",
        ),
    ] = True
    rules: Annotated[tuple[Rule, ...], said("what holds for which guests")] = ()
    adoptions: Annotated[tuple[Adoption, ...], said("which QEMUs are adopted")] = ()
    ksm: Annotated[KsmConfig, said("merging of equal pages")] = KsmConfig()
    journal: Annotated[JournalConfig, said("what is remembered")] = JournalConfig()

    def rule(self, guest: str, name: str | None = None) -> Rule | None:
        """Find the rule for a guest; None: there is none, and the defaults hold.

        Args:
            guest: its id.
            name: its name; None: it has no other than its id.
        """
        return next((rule for rule in self.rules if matches(rule.match, guest, name)), None)

    def domain(self, guest: str, started: str | None, name: str | None = None) -> str | None:
        """Return the domain that a guest belongs to, or None where it belongs to none.

        Args:
            guest: its id.
            started: the domain that it was started with.
            name: its name.
        """
        rule = self.rule(guest, name)
        return started if rule is None or rule.domain is None else rule.domain

    def may_reclaim(self, guest: str, name: str | None, *, made: bool) -> bool:
        """Tell whether the host may reclaim memory of a guest's own cgroup.

        Args:
            guest: its id.
            name: its name.
            made: whether the launcher made that cgroup, so that nothing else relies on what is in
                it.
        """
        rule = self.rule(guest, name) or ANY
        allowed = made if rule.reclaim is None else rule.reclaim
        return self.reclaim and rule.managed and allowed

    def limits(
        self,
        guest: str,
        maximum: Bytes,
        name: str | None = None,
        current: Bytes | None = None,
    ) -> Limits:
        """Return what holds for a guest of this size: 0 < minimum ≤ maximum ≤ its own maximum.

        The minimum of its class is not above the size that it starts with. That of a rule may be.

        Args:
            guest: its id.
            maximum: what it was started with.
            name: its name.
            current: what its launcher was asked to start it with, which comes before a rule's.
        """
        return _limits(self.rule(guest, name) or ANY, maximum, current)

    def beyond(self, guest: str, maximum: Bytes, name: str | None = None) -> Bytes | None:
        """Return the minimum of a guest's rule where that is more than the guest can ever have.

        Args:
            guest: its id.
            maximum: what it was started with.
            name: its name.
        """
        rule = self.rule(guest, name)
        least = None if rule is None else rule.minimum
        return least if isinstance(least, int) and least > maximum else None


LEAST_HEADROOM: Final = Bytes(64 * MIB)
"""Least that a guest is left beyond what it works with: a tenth of a guest of less than 640 MiB,
and a fortieth of a guest of more than 2.5 GiB."""


ANY: Final = Rule(match="*")
"""The rule of a guest that no rule of the configuration matches."""


@lru_cache(maxsize=1024)  # called for each guest in each round, and most are alike
def _limits(rule: Rule, maximum: Bytes, current: Bytes | None) -> Limits:
    preset = PRESETS[rule.kind]
    default = max(_share(maximum, preset.minimum_percent), MINIMUM_LEAST)
    highest = _bound(rule.maximum, maximum) or maximum
    lowest = _bound(rule.minimum, maximum)
    highest = min(maximum, highest)
    if current is None:
        current = _bound(rule.current, maximum)
    if lowest is None:
        lowest = default if current is None else min(default, current)
    lowest = min(highest, lowest)
    return Limits(
        minimum=_whole(lowest),
        maximum=_whole(highest),
        shares=preset.shares if rule.shares is None else rule.shares,
        headroom_percent=preset.headroom_percent,
        managed=rule.managed,
        current=None if current is None else _whole(min(highest, max(lowest, current))),
    )


def _bound(size: Size | None, maximum: Bytes) -> Bytes | None:
    return _share(maximum, size.percent) if isinstance(size, Share) else size


def _share(size: Bytes, percent: int | Decimal) -> Bytes:
    return Bytes(int(size * percent // 100))


def _whole(size: int) -> Bytes:
    return Bytes(max(PAGE, size - size % PAGE))
