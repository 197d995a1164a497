"""The private parts of other packages that ours rests on: named in one place, and as they were.

Where a test here fails after an upgrade, the part has changed. Read it again beside the code that
uses it, then write the new fingerprint down.
"""

import ast
import hashlib
import inspect
import re
import textwrap
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
import qemu.qmp.events
import qemu.qmp.protocol
import qemu.qmp.qmp_client
import typer
import uvicorn.config
import uvicorn.protocols.http.flow_control
import uvicorn.protocols.http.h11_impl
import uvicorn.server

from qmpmem.api import bounded_connection, connection
from qmpmem.serve import visitor_connection
from qmpmem.wire import qmp

ROOT: Final = Path(__file__).resolve().parents[2]

QMP_BASE: Final = (qemu.qmp.events, qemu.qmp.protocol, qemu.qmp.qmp_client)
HTTP_BASE: Final = (uvicorn.protocols.http.h11_impl,)

FINGERPRINTS: Final[Mapping[str, str]] = {
    "qemu.qmp AsyncProtocol.__init__": "2afdb0deebb5",
    "qemu.qmp __init__": "05850b74aefd",
    "qemu.qmp _bh_flush_writer": "853db5696e18",
    "qemu.qmp _bh_loop_forever": "e6aa7d04fb10",
    "qemu.qmp _bh_recv_message": "92a1d6d3a14e",
    "qemu.qmp _cb_outbound": "18160f78da87",
    "qemu.qmp _do_connect": "4e231de1dce3",
    "qemu.qmp _do_send": "3381c1fabd81",
    "qemu.qmp _establish_session": "bbf7dcfc8eb4",
    "qemu.qmp _execute": "ebb4f4775e4c",
    "qemu.qmp _get_exec_id": "767f2acbce35",
    "qemu.qmp _issue": "65b1c89d3871",
    "qemu.qmp _readline": "48a4ee11a9c7",
    "qemu.qmp _send": "d6e322839e24",
    "qemu.qmp _set_state": "4944706fb4d8",
    "qemu.qmp disconnect": "ff85b7a01c0c",
    "qemu.qmp execute": "767ddbddcc9f",
    "uvicorn ServerState": "f2260fbf1015",
    "uvicorn __init__": "4f759f3ff037",
    "uvicorn connection_lost": "4401bc3dceba",
    "uvicorn connection_made": "ba1915817ccf",
    "uvicorn data_received": "b8454726ed40",
    "uvicorn on_response_complete": "f3922ff1678f",
    "uvicorn send_400_response": "322c6ac4bde7",
}


def names_of(modules: tuple[ModuleType, ...]) -> set[str]:
    """Find what classes of these modules define or set on themselves."""
    source = "\n".join(inspect.getsource(module) for module in modules)
    methods = re.findall(r"^    (?:async )?def (\w+)", source, re.MULTILINE)
    return {*methods, *re.findall(r"\bself\.(\w+)", source)}


def used_by(owner: type) -> set[str]:
    """Find what a class of ours overrides, and what it reads or sets on itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    found = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return found | {node.name for node in ast.walk(tree) if isinstance(node, functions)}


def print_of(part: Callable[..., Any]) -> str:
    source = textwrap.dedent(inspect.getsource(part))
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def parts() -> dict[str, Callable[..., Any]]:
    """The source of each part that is code; the others are attributes that these set."""
    client, protocol = qemu.qmp.qmp_client.QMPClient, qemu.qmp.protocol.AsyncProtocol
    http = uvicorn.protocols.http.h11_impl.H11Protocol
    found = {
        f"qemu.qmp {name}": getattr(client, name)
        for name in (*qmp.SEAM, "__init__", "execute", "disconnect")
        if callable(getattr(client, name, None))
    }
    found["qemu.qmp AsyncProtocol.__init__"] = protocol.__init__
    found |= {
        f"uvicorn {name}": getattr(http, name)
        for name in (*bounded_connection.SEAM, "__init__")
        if callable(getattr(http, name, None))
    }
    found["uvicorn ServerState"] = uvicorn.server.ServerState
    return found


def test_what_is_used_of_qemu_qmp_is_what_is_named() -> None:
    used = used_by(qmp._Client) & names_of(QMP_BASE)
    private = {name for name in used if name.startswith("_") and not name.startswith("__")}
    assert private == {name for name in qmp.SEAM if name.startswith("_")}
    assert set(qmp.SEAM) <= used


def test_what_is_used_of_uvicorn_is_what_is_named() -> None:
    ours = (
        bounded_connection.BoundedConnection,
        connection._Connection,
        visitor_connection.VisitorConnection,
    )
    used = set[str]().union(*map(used_by, ours)) & names_of(HTTP_BASE)
    assert {name for name in used if not name.startswith("__")} == set(bounded_connection.SEAM)
    assert isinstance(uvicorn.protocols.http.flow_control.CLOSE_HEADER, tuple)
    state = uvicorn.server.ServerState()
    assert (state.default_headers, state.tasks) == ([], set())


@pytest.mark.parametrize("name", sorted(parts()))
def test_a_part_is_as_it_was_when_the_code_was_written(name: str) -> None:
    assert print_of(parts()[name]) == FINGERPRINTS.get(name), "read it again, and see SEAM"


def test_nothing_else_is_recorded() -> None:
    assert FINGERPRINTS.keys() == parts().keys()


@pytest.mark.parametrize("package", ["qemu.qmp", "uvicorn", "typer"])
def test_a_package_with_a_seam_is_bounded_above(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [needed] = [each for each in project["dependencies"] if re.match(rf"{package}\W", each)]
    assert re.search(r">=[\d.]+,<[\d.]+$", needed), needed


def test_typer_has_the_base_of_its_usage_errors() -> None:
    """`qmpmem.cli.app` finds it by its name: typer exports none."""
    assert "ClickException" in {base.__name__ for base in typer.BadParameter.__mro__}
