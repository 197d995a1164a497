"""What the administrator wants: one frozen record, and where each default comes from.

Rules of this file:
    Pure: a mapping goes in, a `Config` or every mistake at once comes out. Files are opened
    elsewhere (`qmpmem.configuration`).
    A default stands in one place, here, with a line that says where it is from.
"""

from fnmatch import fnmatchcase
from typing import Final, Literal

from qmpmem.records import Record
from qmpmem.units import GIB, MIB, PAGE, Bytes

Class = Literal["default", "database", "desktop", "ci"]
OnStop = Literal["keep", "relax", "release"]

MINIMUM_PERCENT: Final = 35
"""ESX caps the balloon at 65 % (Mem.CtlMaxPercent)."""
MINIMUM_LEAST: Final = Bytes(128 * MIB)

SHARES: Final = 1000


class Preset(Record, frozen=True):
    """A class of guests: what differs from the default."""

    minimum_percent: int = MINIMUM_PERCENT
    shares: int = SHARES
    headroom_percent: int = 20
    """Hyper-V's buffer and MOM's are 20 %; Neon keeps about a third."""


PRESETS: Final[dict[Class, Preset]] = {
    "default": Preset(),
    "database": Preset(minimum_percent=60, shares=2000, headroom_percent=30),
    "desktop": Preset(minimum_percent=40, shares=1000, headroom_percent=25),
    "ci": Preset(minimum_percent=25, shares=500, headroom_percent=20),
}


class Rule(Record, frozen=True, omit_defaults=True):
    """What holds for the guests whose id matches; the first rule that matches counts."""

    match: str
    """A pattern as of the shell: ``db*``."""
    minimum: Bytes | None = None
    maximum: Bytes | None = None
    shares: int | None = None
    managed: bool = True
    kind: Class = "default"
    domain: str | None = None


class Limits(Record, frozen=True):
    """What holds for one guest."""

    minimum: Bytes
    maximum: Bytes
    shares: int
    headroom_percent: int
    managed: bool


class KsmConfig(Record, frozen=True, omit_defaults=True):
    """Whether and how hard the agent merges."""

    managed: bool = False
    """Off until the operator says that the guests belong together: merging across tenants leaks."""
    across_domains: bool = False
    max_cpu: int = 70
    """Percent of a core, at most, whatever the state of the host."""


class JournalConfig(Record, frozen=True, omit_defaults=True):
    """How much is remembered."""

    path: str | None = None
    """None: journal.db in the state directory (STATE_DIRECTORY, else /var/lib/qmpmem)."""
    hours: float = 24.0
    size: Bytes = Bytes(64 * MIB)


class Config(Record, frozen=True, omit_defaults=True):
    """All settings of the agent."""

    period: float = 1.0
    """Seconds between rounds; a quarter of it while the host is in HARD or CRITICAL."""
    reserve: Bytes | None = None
    """What the host keeps; None: the sliding scale of ESX."""
    budget: Bytes | str | None = None
    """Narrower than the host: bytes, or the path of a cgroup. None: the host."""
    on_stop: OnStop = "relax"
    grace: float = 60.0
    """Seconds after start, reset, resume or migration without taking anything (CloudStack #7430:
    ballooning at boot panics guests)."""
    idle_tax: float = 0.75
    """ESX's default: an idle page costs as much as four active ones."""
    rules: tuple[Rule, ...] = ()
    ksm: KsmConfig = KsmConfig()
    journal: JournalConfig = JournalConfig()

    def rule(self, guest: str) -> Rule | None:
        """Find the rule for a guest; None: there is none, and the defaults hold."""
        return next((rule for rule in self.rules if fnmatchcase(guest, rule.match)), None)

    def limits(self, guest: str, maximum: Bytes) -> Limits:
        """Say what holds for a guest of this size: 0 < minimum ≤ maximum ≤ its own maximum."""
        rule = self.rule(guest) or Rule(match="*")
        preset = PRESETS[rule.kind]
        highest = min(maximum, rule.maximum or maximum)
        default = max(maximum * preset.minimum_percent // 100, MINIMUM_LEAST)
        lowest = min(highest, default if rule.minimum is None else rule.minimum)
        return Limits(
            minimum=_whole(lowest),
            maximum=_whole(highest),
            shares=preset.shares if rule.shares is None else rule.shares,
            headroom_percent=preset.headroom_percent,
            managed=rule.managed,
        )


LEAST_HEADROOM: Final = Bytes(64 * MIB)
MOST_HEADROOM: Final = Bytes(GIB)


def _whole(size: int) -> Bytes:
    return Bytes(max(PAGE, size - size % PAGE))
