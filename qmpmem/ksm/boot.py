"""What KSM shall be when the host starts: three settings among the host's defaults. Pure.

KSM_ENABLED has the name that it had in /etc/default/qemu-kvm, so that an old file still works.
"""

from collections.abc import Iterator, Mapping
from typing import Final, cast

from qmpmem.errors import ConfigError
from qmpmem.files.defaults import Defaults
from qmpmem.ksm.presets import PRESETS, Name
from qmpmem.records import Record

CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "KSM_ENABLED": ("0", "1"),
    "KSM_PRESET": tuple(PRESETS),
    "KSM_ACROSS_DOMAINS": ("0", "1"),
}
"""The settings, and the values that each may have."""


class AtBoot(Record, frozen=True):
    """What the administrator wants."""

    enabled: bool | None
    """Whether pages are merged; None: that is not set, so nothing is done."""
    preset: Name | None
    across_domains: bool


def read(found: Defaults) -> AtBoot:
    """Read the settings.

    Raises:
        ConfigError: some make no sense; one message has all mistakes.
    """
    mistakes = list(_mistakes(found))
    if mistakes:
        raise ConfigError("; ".join(mistakes), hint="KSM was left as it is")
    values = found.values
    enabled = values.get("KSM_ENABLED") or None
    return AtBoot(
        enabled=None if enabled is None else enabled == "1",
        preset=cast("Name | None", values.get("KSM_PRESET") or None),
        across_domains=values.get("KSM_ACROSS_DOMAINS") == "1",
    )


def _mistakes(found: Defaults) -> Iterator[str]:
    if found.problem:
        yield f"{found.path}: {found.problem}"
    for mistake in found.mistakes:
        yield f"{found.path} line {mistake.number}: expected KEY=VALUE, got {mistake.line[:60]!r}"
    for key, choices in CHOICES.items():
        value = found.values.get(key)
        if value and value not in choices:
            yield f"{found.path}: {key}={value[:40]!r}: expected {' or '.join(choices)}"
