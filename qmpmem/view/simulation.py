"""The results of simulated runs, as rows of text. Pure."""

from typing import Final

from qmpmem.simulate.results import Results
from qmpmem.view.rows import size

HEADERS: Final = (
    "POLICY",
    "DEVICES",
    "UNMET MiB·s",
    "GUEST OOM",
    "HOST OOM",
    "DISTRESS s",
    "LONGEST s",
    "HOST SWAP-IN",
    "MOVED",
    "COMMANDS",
    "TURNS",
    "IN 30 s",
    "WORST",
)


def row(report: Results) -> tuple[str, ...]:
    """Return one run as a row under `HEADERS`."""
    return (
        report.policy,
        report.devices,
        f"{report.unmet:.0f}",
        str(report.guest_kills),
        str(report.host_kills),
        f"{report.distress:.0f}",
        f"{report.longest:.1f}",
        size(report.host_swap_in),
        size(report.moved),
        str(report.commands),
        str(report.turns),
        str(report.reversals),
        report.worst,
    )
