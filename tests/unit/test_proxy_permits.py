"""What each kind of session lets through to QEMU."""

import json
from collections.abc import Mapping
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.proxy import permits
from qmpmem.proxy.requests import Answer, judge
from tests.rig.permitted import BALLOON, INTERVAL, PASSED, REFUSED


@pytest.mark.parametrize(("command", "arguments"), PASSED)
def test_an_agent_may_move_memory_and_read(
    command: str, arguments: Mapping[str, object] | None
) -> None:
    assert permits.balloon(command, arguments) is None


@pytest.mark.parametrize(("command", "arguments"), REFUSED)
def test_an_agent_may_do_nothing_else(command: str, arguments: Mapping[str, object] | None) -> None:
    refused = permits.balloon(command, arguments)
    assert refused is not None
    assert "moves memory and reads" in refused
    message: dict[str, object] = {"execute": command, "id": 5}
    if arguments is not None:
        message["arguments"] = arguments
    judged = judge(json.dumps(message).encode(), negotiated=True, permit=permits.balloon)
    assert isinstance(judged, Answer)
    answer = json.loads(judged.line)
    assert answer["id"] == 5
    assert "error" in answer


VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
NAMES: Final = ("balloon", "qom-get", "qom-set", "qom-list")


@given(
    st.sampled_from(NAMES),
    st.dictionaries(
        st.sampled_from(("path", "property", "value", "x")),
        st.sampled_from((BALLOON, "/machine", "/objects/a", INTERVAL, "type", "realized", 1, "/"))
        | VALUES,
    ),
)
def test_whatever_the_arguments_are_nothing_but_the_interval_is_set(
    command: str, arguments: dict[str, object]
) -> None:
    refused = permits.balloon(command, arguments)
    if refused is None and command == "qom-set":
        assert arguments["property"] == INTERVAL
        assert str(arguments["path"]).startswith("/machine/peripheral")
        assert isinstance(arguments["value"], int)
