"""What each kind of session lets through to QEMU."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.proxy import allowed_commands
from qmpmem.proxy.allowed_commands import PROVIDERS, Permit
from qmpmem.proxy.requests import Answer, judge
from qmpmem.units import Bytes
from qmpmem.wire import commands, guest_devices
from tests.rig.permitted import BALLOON, INTERVAL, PASSED, REFUSED

if TYPE_CHECKING:
    from qmpmem.wire.channel import Channel


@pytest.mark.parametrize(("command", "arguments"), PASSED)
def test_an_agent_may_move_memory_and_read(
    command: str, arguments: Mapping[str, object] | None
) -> None:
    assert allowed_commands.balloon(command, arguments) is None


@pytest.mark.parametrize(("command", "arguments"), REFUSED)
def test_an_agent_may_do_nothing_else(command: str, arguments: Mapping[str, object] | None) -> None:
    refused = allowed_commands.balloon(command, arguments)
    assert refused is not None
    assert "moves memory and reads" in refused
    message: dict[str, object] = {"execute": command, "id": 5}
    if arguments is not None:
        message["arguments"] = arguments
    judged = judge(json.dumps(message).encode(), negotiated=True, permit=allowed_commands.balloon)
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
    refused = allowed_commands.balloon(command, arguments)
    if refused is None and command == "qom-set":
        assert arguments["property"] == INTERVAL
        assert str(arguments["path"]).startswith("/machine/peripheral")
        assert isinstance(arguments["value"], int)


FITTING: Final[Mapping[str, object]] = {
    "boolean": True,
    "integer": 7,
    "string": "x",
    "array of strings": ["/machine/unattached/device[0]"],
    "array of providers": [{"provider": "kvm", "names": ["exits"]}, {"provider": "cryptodev"}],
}
ODD: Final[tuple[object, ...]] = (
    None, 1.5, {}, [{}], [[]], [1], [{"provider": 1}], [{"provider": "kvm", "names": [1]}],
    [{"names": []}], [{"provider": "kvm", "more": 1}], [{"provider": "kvm"}] * (PROVIDERS + 1),
    {"a": [{}]},
)  # fmt: skip
PERMITS: Final = (allowed_commands.queries, allowed_commands.balloon)


@pytest.mark.parametrize("permit", PERMITS)
@pytest.mark.parametrize("query", sorted(allowed_commands.QUERIES))
def test_a_query_gets_the_arguments_that_it_takes_and_no_other(query: str, permit: Permit) -> None:
    """Row F94."""
    taken = allowed_commands.TAKEN.get(query, {})
    fitting = {member: FITTING[kind.called] for member, kind in taken.items()}
    for arguments in (None, {}, fitting, *({key: fitting[key]} for key in fitting)):
        assert permit(query, arguments) is None
    for value in (*ODD, *FITTING.values()):
        assert permit(query, fitting | {"a": value}) == "Parameter 'a' is unexpected"
        for member, kind in taken.items():
            refused = permit(query, fitting | {member: value})
            if value is FITTING[kind.called]:
                assert refused is None
            else:
                assert refused == (
                    f"Invalid parameter type for '{member}', expected: {kind.called}"
                )


def test_what_may_have_arguments_is_a_query() -> None:
    assert allowed_commands.TAKEN.keys() <= allowed_commands.QUERIES


class Asked:
    """A guest with one of everything, which expects that what it is asked is permitted."""

    guest = "g"

    def __init__(self) -> None:
        self.read = set[str]()
        self.listed = set[str]()

    async def query(self, command: str, arguments: dict[str, Any] | None = None) -> object:
        assert allowed_commands.balloon(command, arguments) is None, (command, arguments)
        given = arguments or {}
        if command == "qom-list":
            self.listed.add(given["path"])
            return CHILDREN[given["path"]]
        if command == "qom-get":
            self.read.add(given["property"])
            return PROPERTIES.get(given["property"], "/objects/b")
        return ANSWERS[command]

    async def change(self, command: str, arguments: dict[str, Any] | None = None) -> object:
        assert allowed_commands.balloon(command, arguments) is None, (command, arguments)
        return {}


CHILDREN: Final = {
    "/machine/peripheral": [
        {"name": "c", "type": "child<cxl-type3>"},
    ],
    "/machine/peripheral-anon": [{"name": "device[0]", "type": "child<virtio-balloon-pci>"}],
    "/objects": [
        {"name": "a", "type": "child<memory-backend-memfd>"},
        {"name": "b", "type": "child<memory-backend-file>"},
    ],
}
PROPERTIES: Final = {
    "confidential-guest-support": "",
    "deflate-on-oom": True,
    "free-page-reporting": True,
    "hugetlb": False,
    "share": False,
    "size": 4096,
    INTERVAL: 2,
    "guest-stats": {"stats": {}, "last-update": 0},
}
ANSWERS: Final = {
    "query-status": {"status": "running"},
    "query-balloon": {"actual": 1},
    "query-memory-size-summary": {"base-memory": 1, "plugged-memory": 1},
    "query-memory-devices": [],
    "query-named-block-nodes": [],
    "query-blockstats": [],
    "query-kvm": {"enabled": True},
    "query-memdev": [],
}


async def test_all_that_an_agent_asks_is_permitted_and_no_property_more() -> None:
    asked = Asked()
    session = cast("Channel", asked)
    found = await guest_devices.look(session, lambda _: False)
    assert found.cxl == 3 * 4096
    device = await commands.find_balloon(session)
    assert device is not None
    await commands.set_balloon(session, Bytes(4096))
    await commands.guest_stats(session, device)
    await commands.set_polling_interval(session, device, 2)
    await commands.polling_interval(session, device)
    for ask in (
        commands.run_state,
        commands.balloon_actual,
        commands.sizes,
        commands.disks,
        commands.machine_type,
        commands.kvm_enabled,
        commands.memory_devices,
    ):
        await ask(session)
    assert asked.read == set(allowed_commands.READABLE)
    assert asked.listed == allowed_commands.LISTED
