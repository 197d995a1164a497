"""QMPMEM_ settings, in the environment and in the host's defaults.

Rules of this file:
    What is accepted is what launchers/kvm accepts, which reads settings without this package;
    a test holds the two together. It refuses at the first mistake, and the guest starts unchanged;
    here, every mistake is named.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from qmpmem.configuration import value_types
from qmpmem.configuration.keys import GUEST, find
from qmpmem.doctor.finding import Finding, Host, failed, ok, warning
from qmpmem.files import defaults
from qmpmem.files.defaults import Defaults
from qmpmem.ksm import boot
from qmpmem.wire.errors import one_line

_DOMAIN: Final = re.compile(r"[._-]*[A-Za-z0-9][A-Za-z0-9._-]*")
_DOMAIN_LIMIT: Final = 64
_UNCHANGED: Final = "correct it; until then guests start without a balloon of ours"
_IDLE: Final = "correct it; until then KSM is left as it is at boot"

Check = Callable[[Host, str], str | None]
"""Returns what was expected, where a value is not that."""


def check_settings(host: Host) -> Iterator[Finding]:
    """Tell whether every setting is known and makes sense."""
    found = defaults.load(host.environ, host.root)
    complaints = [
        *_judge(host, "environment", _of_environment(host.environ)),
        *_judge_defaults(host, found),
    ]
    yield from complaints
    if not complaints:
        where = f"no {found.path}" if found.missing else found.path
        yield ok("settings", f"{len(_of_environment(host.environ))} in the environment, {where}")


def _of_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environ.items() if key.startswith("QMPMEM_") and value}


def _judge_defaults(host: Host, found: Defaults) -> Iterator[Finding]:
    if found.problem:
        said = f"{found.path}: {found.problem}"
        yield failed("settings", said, f"make it a readable file: {found.path}")
    for mistake in found.mistakes:
        said = f"{found.path} line {mistake.number}: {one_line(mistake.line)!r}, expected KEY=VALUE"
        yield failed("settings", said, _UNCHANGED)
    yield from _judge(host, found.path, found.values)


def _judge(host: Host, where: str, values: Mapping[str, str]) -> Iterator[Finding]:
    for key, value in values.items():
        check = _SETTINGS.get(key)
        if check is None:
            said = f"{where}: {one_line(key)} is no setting"
            yield warning("settings", said, "remove it, or correct its name")
        elif value and (expected := check(host, value)) is not None:
            said = f"{where}: {key}={one_line(value)!r}, expected {expected}"
            yield failed("settings", said, _IDLE if key in boot.CHOICES else _UNCHANGED)


def _one_of(*choices: str) -> Check:
    def check(_: Host, value: str) -> str | None:
        return None if value in choices else " or ".join(choices)

    return check


def _anything(_host: Host, _value: str) -> None:
    return None


def _domain(_: Host, value: str) -> str | None:
    is_plain = len(value) <= _DOMAIN_LIMIT and _DOMAIN.fullmatch(value)
    return None if is_plain else f"1 to {_DOMAIN_LIMIT} letters, digits, ._-"


def _current(_: Host, value: str) -> str | None:
    kind = find(GUEST, "current").kind
    try:
        kind.read(value)
    except value_types.UnfitError:
        return kind.expected
    return None


def _cgroup(_: Host, value: str) -> str | None:
    parts = value.rstrip("/").split("/")
    is_path = parts[0] == "" and len(parts) > 1 and not {"", ".", ".."} & set(parts[1:])
    return None if is_path or value in ("on", "off") else "on, off or a path such as /vms"


def _absolute(_: Host, value: str) -> str | None:
    return None if value.startswith("/") else "an absolute path"


def _program(host: Host, value: str) -> str | None:
    path = host.path(value)
    is_program = "/" not in value or (path.is_file() and os.access(path, os.X_OK))
    return None if is_program else "a program"


_SETTINGS: Final[Mapping[str, Check]] = {
    "QMPMEM_MODE": _one_of("balloon", "static"),
    "QMPMEM_BALLOON": _one_of("on", "off"),
    "QMPMEM_INCOMING_BALLOON": _one_of("on", "off"),
    "QMPMEM_ASK_SCRIPT": _one_of("on", "off"),
    "QMPMEM_CURRENT": _current,
    "QMPMEM_CGROUP": _cgroup,
    "QMPMEM_KSM": _one_of("on", "off"),
    "QMPMEM_KSM_DIR": _absolute,
    **{key: _one_of(*choices) for key, choices in boot.CHOICES.items()},
    "QMPMEM_DOMAIN": _domain,
    "QMPMEM_RUN_DIR": _absolute,
    "QMPMEM_REAL": _program,
    "QMPMEM_PYTHON": _program,
    "QMPMEM_DEFAULTS": _absolute,
    "QMPMEM_CONFIG": _anything,  # the agent's and the CLI's: they say themselves what is wrong
    "QMPMEM_AGENT_SOCKET": _anything,
    "QMPMEM_DEBUG": _anything,
    "QMPMEM_LAUNCHING": _anything,  # the launcher's own: set in each guest's environment
}
