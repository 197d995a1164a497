"""What is right and what is wrong on this host, each with what to do about it.

finding   a line of the doctor's, and the host that it is about
kernel    KVM, KSM, pressure stall information
emulator  the emulator, and what stands in the place of the kvm command
settings  QMPMEM_ settings
access    which users get at the guests
guests    guests that run emulated, and what guests left behind
cgroups   whether memory of guests' cgroups can be reclaimed

Rules of this package:
    Nothing is changed, and no process is connected to. All that is read is below a root that is an
    argument. A check that fails itself is a line like any other: one sick corner hides no other.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from qmpmem.doctor.access import check_group, check_run_directory
from qmpmem.doctor.cgroups import check_reclaim
from qmpmem.doctor.emulator import check_emulator, check_launcher, check_old_recipe
from qmpmem.doctor.finding import Finding, Host, Status, failed
from qmpmem.doctor.guests import check_balloons, check_emulated, check_leftovers
from qmpmem.doctor.kernel import check_ksm, check_kvm, check_limit, check_pressure
from qmpmem.doctor.settings import check_settings
from qmpmem.errors import QmpmemError

__all__ = ["Finding", "Host", "Status", "check", "examine"]

CHECKS: Final[Mapping[str, Callable[[Host], Iterator[Finding]]]] = {
    "emulator": check_emulator,
    "launcher": check_launcher,
    "old recipe": check_old_recipe,
    "KVM": check_kvm,
    "emulated guests": check_emulated,
    "KSM": check_ksm,
    "pressure": check_pressure,
    "memory limit": check_limit,
    "group": check_group,
    "run directory": check_run_directory,
    "leftovers": check_leftovers,
    "balloons": check_balloons,
    "reclaim": check_reclaim,
    "settings": check_settings,
}


async def examine(
    run: Path,
    *,
    roots: Path | None = None,
    root: Path = Path("/"),
    environ: Mapping[str, str] | None = None,
) -> tuple[Finding, ...]:
    """Check a host.

    Args:
        run: the run directory.
        roots: root's run directory, where this user sees that one as well.
        root: where usr, etc, proc, sys and dev are; an absolute path.
        environ: the environment; this process's if not given.
    """
    host = Host(
        root=root,
        run=run,
        roots=roots,
        environ=dict(os.environ if environ is None else environ),
        uid=os.geteuid(),
        groups=frozenset({os.getegid(), *os.getgroups()}),
    )
    return await asyncio.to_thread(check, host)


def check(host: Host) -> tuple[Finding, ...]:
    """Examine a host, as `examine` does, outside of an event loop."""
    return tuple(line for what, one in CHECKS.items() for line in _safely(what, one, host))


def _safely(what: str, one: Callable[[Host], Iterator[Finding]], host: Host) -> Iterator[Finding]:
    try:
        yield from one(host)
    except QmpmemError as error:
        yield failed(what, error.message, error.hint)
    except OSError as error:
        yield failed(what, f"{error.filename}: {error.strerror}", None)
