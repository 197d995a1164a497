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

from qmpmem.doctor.line import Host, Line, failed, ok, warning
from qmpmem.wire.reasons import one_line

DEFAULTS: Final = "/etc/default/qmpmem"
_DOMAIN: Final = re.compile(r"[._-]*[A-Za-z0-9][A-Za-z0-9._-]*")
_DOMAIN_LIMIT: Final = 64
_UNCHANGED: Final = "correct it; until then guests start without a balloon of ours"

Check = Callable[[Host, str], str | None]
"""Says what was expected, where a value is not that."""


def check_settings(host: Host) -> Iterator[Line]:
    """Whether every setting is known and makes sense."""
    name = host.environ.get("QMPMEM_DEFAULTS") or DEFAULTS
    complaints = [
        *_judge(host, "environment", _of_environment(host.environ)),
        *_judge_defaults(host, name),
    ]
    yield from complaints
    if not complaints:
        where = name if host.path(name).is_file() else f"no {name}"
        yield ok("settings", f"{len(_of_environment(host.environ))} in the environment, {where}")


def _of_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environ.items() if key.startswith("QMPMEM_") and value}


def _judge_defaults(host: Host, name: str) -> Iterator[Line]:
    try:
        content = host.path(name).read_text(errors="surrogateescape")
    except FileNotFoundError:
        return
    except OSError as error:
        yield failed("settings", f"{name}: {error.strerror}", f"make it a readable file: {name}")
        return
    values: dict[str, str] = {}
    for number, line in enumerate(content.splitlines(), 1):
        key, equals, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals or not key.replace("_", "a").isalnum():
            said = f"{name} line {number}: {one_line(line)!r}, expected KEY=VALUE"
            yield failed("settings", said, _UNCHANGED)
            continue
        is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        values[key] = value[1:-1] if is_quoted else value
    yield from _judge(host, name, values)


def _judge(host: Host, where: str, values: Mapping[str, str]) -> Iterator[Line]:
    for key, value in values.items():
        check = _SETTINGS.get(key)
        if check is None:
            said = f"{where}: {one_line(key)} is no setting"
            yield warning("settings", said, "remove it, or correct its name")
        elif value and (expected := check(host, value)) is not None:
            said = f"{where}: {key}={one_line(value)!r}, expected {expected}"
            yield failed("settings", said, _UNCHANGED)


def _one_of(*choices: str) -> Check:
    def check(_: Host, value: str) -> str | None:
        return None if value in choices else " or ".join(choices)

    return check


def _anything(_host: Host, _value: str) -> None:
    return None


def _domain(_: Host, value: str) -> str | None:
    is_plain = len(value) <= _DOMAIN_LIMIT and _DOMAIN.fullmatch(value)
    return None if is_plain else f"1 to {_DOMAIN_LIMIT} letters, digits, ._-"


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
    "QMPMEM_KSM": _one_of("on", "off"),
    "QMPMEM_DOMAIN": _domain,
    "QMPMEM_RUN_DIR": _absolute,
    "QMPMEM_REAL": _program,
    "QMPMEM_PYTHON": _program,
    "QMPMEM_DEFAULTS": _absolute,
    "QMPMEM_DEBUG": _anything,
    "QMPMEM_LAUNCHING": _anything,  # the launcher's own: set in each guest's environment
}
