"""The size that a guest starts with: how it is asked for, and which guests it is for."""

import contextlib
import json
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from launchers.kvm_balloon import Capabilities
from launchers.kvm_current import EXPECTED, leave_request, ram_size, read_current, request
from launchers.kvm_options import Line
from launchers.kvm_plan import Plan, decide
from launchers.kvm_settings import SettingError, Settings, read_settings
from launchers.kvm_slots import PCI
from qmpmem.configuration import value_types
from qmpmem.configuration.keys import GUEST, LEAST_GUEST, find
from qmpmem.units import Share
from tests.rig.launcher import listen
from tests.rig.patience import patient
from tests.rig.qemu import short_directory

MIB: Final = 1 << 20
GIB: Final = 1 << 30
DEFLATES: Final = frozenset({"deflate-on-oom", "free-page-reporting"})
RULE: Final = value_types.size_or_percent(LEAST_GUEST)
"""What a rule of the agent's configuration takes for the same."""


def plan(
    *words: str,
    current: str = "25%",
    properties: frozenset[str] = DEFLATES,
    json: bool = True,
    configs: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
) -> Plan:
    able = Capabilities(json=json, machine="pc", properties={PCI: properties})
    values = {"QMPMEM_CURRENT": current, **(settings or {})}
    return decide(Line(words, configs), Settings(values), able)


@pytest.mark.parametrize(
    ("text", "size", "percent"),
    [
        ("256M", 256 * MIB, None),
        ("1.5GiB", 3 * GIB // 2, None),
        ("262144K", 256 * MIB, None),
        (" 1 tib ", 1 << 40, None),
        ("1025.5k", 1025 * 1024 - 1024, None),
        ("25%", None, 25),
        ("100 %", None, 100),
        ("001%", None, 1),
    ],
)
def test_what_is_asked_for(text: str, size: int | None, percent: int | None) -> None:
    asked = read_current(text)
    assert (asked.size, asked.percent) == (size, percent)


def as_rule(text: str) -> object:
    """What a rule makes of a text; None: a mistake."""
    try:
        return RULE.read(text)
    except value_types.UnfitError:
        return None


def as_setting(text: str) -> object:
    try:
        asked = read_current(text)
    except ValueError:
        return None
    return asked.size if asked.percent is None else Share(percent=Decimal(asked.percent))


@given(
    st.from_regex(r"\s*[0-9]{0,18}(\.[0-9]{0,11})?\s*(%|[KMGTPkmgtpiIbB]{0,3})\s*", fullmatch=True)
    | st.text(st.characters(codec="ascii"))
)
@example("")
@example("25")
@example("0%")
@example("101%")
@example("12.5%")
@example("5.0%")
@example("1023K")
@example("1MB")
@example("M")
@example("1.M")
@example("1.2.3M")
@example("9999999999T")
@example("max")
@example("+64M")
@example("0000000000000001M")
@example("1\x85%")
@example("1\x1c%")
@example("1\x85M")
@example("\u20031\u2003M\u2003")
def test_the_launcher_and_a_rule_read_the_same(text: str) -> None:
    assert as_setting(text) == as_rule(text)


def test_the_launcher_and_a_rule_expect_the_same() -> None:
    assert RULE.expected == find(GUEST, "current").kind.expected == EXPECTED


@pytest.mark.parametrize("text", ["25", "0", "x", "-1M", "101%", "\udcff", "\u0665M", "\u0665%"])
def test_nonsense_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(SettingError, match=r"^QMPMEM_CURRENT=.*: expected a size such as") as error:
        read_settings({}, f"QMPMEM_CURRENT={text}\n")
    assert "\n" not in str(error.value)


@given(st.text())
def test_any_text_is_a_size_or_one_error(text: str) -> None:
    with contextlib.suppress(SettingError):
        Settings({"QMPMEM_CURRENT": text})


def test_the_environment_wins_over_the_defaults() -> None:
    settings = read_settings({"QMPMEM_CURRENT": "1G"}, "QMPMEM_CURRENT=25%\n")
    assert settings.current is not None
    assert (settings.current.size, settings.current.percent) == (GIB, None)
    assert read_settings({}, "").current is None


BACKEND: Final = "memory-backend-ram,id=ram,size="


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["-m", "512"], 512 * MIB),
        (["-m", "512M"], 512 * MIB),
        (["-m", "1.5g"], 3 * GIB // 2),
        (["-m", "524288k"], 512 * MIB),
        (["-m", "size=2G,slots=2,maxmem=8G"], 2 * GIB),
        (["-m", "1G", "-m", "2G"], 2 * GIB),
        (["-m", "1G", "-m", "slots=2,maxmem=4G"], GIB),
        (["-m", "4097K"], 4104 * 1024),
        (["-object", f"{BACKEND}67108864", "-machine", "memory-backend=ram"], 64 * MIB),
        (["-object", f"{BACKEND}64M", "-machine", "memory-backend=ram"], 64 * MIB),
        (["-object", f"{BACKEND}64M"], None),
        (["-machine", "memory-backend=other"], None),
        (["-M", "pc,memory.size=1G"], None),
        (["-m", "0"], None),
        (["-m", "0x200"], None),
        (["-m", "lots"], None),
        ([], None),
    ],
)
def test_how_much_memory_a_guest_has(words: list[str], size: int | None) -> None:
    assert ram_size(Line(words)) == size


@pytest.mark.parametrize(
    ("config", "words", "size"),
    [
        ('[memory]\n size = "1024"\n', [], GIB),
        ('[memory]\n size = "1024"\n', ["-m", "2G"], None),  # which of them is read later?
        ('[machine]\n type = "pc"\n', ["-m", "2G"], 2 * GIB),
    ],
)
def test_memory_in_a_configuration_file(config: str, words: list[str], size: int | None) -> None:
    assert ram_size(Line(words, [config])) == size


@pytest.mark.parametrize(
    ("current", "size", "small"),
    [
        ("25%", 256 * MIB, True),
        ("300M", 300 * MIB, True),
        ("99%", (GIB * 99 // 100) & ~4095, True),
        ("100%", GIB, False),
        ("1G", GIB, False),
        ("4T", GIB, False),
    ],
)
def test_a_guest_with_our_balloon(current: str, size: int, small: bool) -> None:  # noqa: FBT001
    made = plan("-m", "1G", current=current)
    assert (made.current, made.starts_small, made.remarks) == (size, small, [])


def test_a_size_is_asked_for_where_the_maximum_is_not_known() -> None:
    made = plan(current="64M")  # QEMU takes what is more than all of it for all of it
    assert (made.current, made.starts_small, made.remarks) == (64 * MIB, True, [])


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["-incoming", "defer"], {}),
        (["-loadvm", "one"], {}),
        ([], {"QMPMEM_MODE": "static"}),
        ([], {"QMPMEM_BALLOON": "off"}),
        (["-version"], {}),
        (["-M", "none"], {}),
    ],
)
def test_guests_that_are_left_alone_without_a_word(
    words: list[str], settings: dict[str, str]
) -> None:
    made = plan("-m", "1G", *words, settings=settings)
    assert (made.current, made.starts_small, made.remarks) == (None, False, [])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["-m", "1G", "-preconfig"], "-preconfig"),
        (["-m", "1G", "-device", "virtio-balloon-pci"], "a balloon of its own"),
        ([], "-m does not say"),
        (["-m", "1G,slots=2,maxmem=4G", "-device", "pc-dimm,id=d,memdev=m"], "pc-dimm brings"),
        (["-m", "1G", "-device", '{"driver":"virtio-mem-pci","id":"v"}'], "virtio-mem-pci brings"),
        (["-m", "1G", "-device", "nvdimm,id=d,memdev=m"], "nvdimm brings"),
    ],
)
def test_guests_that_start_with_all_of_it_and_are_told_so(words: list[str], why: str) -> None:
    made = plan(*words)
    assert (made.current, made.starts_small) == (None, False)
    [remark] = made.remarks
    assert remark.startswith("QMPMEM_CURRENT is not followed: ")
    assert why in remark


@pytest.mark.parametrize("json", [True, False])
@pytest.mark.parametrize(
    ("properties", "current", "remarks"),
    [
        (frozenset[str](), None, 1),
        (frozenset({"free-page-reporting"}), None, 1),
        (frozenset({"deflate-on-oom"}), 256 * MIB, 0),
    ],
)
def test_a_balloon_that_does_not_deflate_by_itself(
    properties: frozenset[str],
    current: int | None,
    remarks: int,
    json: bool,  # noqa: FBT001
) -> None:
    """The guest could not take back what it lacks."""
    made = plan("-m", "1G", properties=properties, json=json)
    assert made.balloon is not None
    assert (made.current, made.starts_small) == (current, current is not None)
    lacks = [remark for remark in made.remarks if "lacks deflate-on-oom" in remark]
    assert len(lacks) == remarks


def test_a_guest_without_a_balloon_hears_once_why() -> None:
    made = plan("-m", "1G", "-overcommit", "mem-lock=on")
    assert made.current is None
    assert made.remarks == ["no balloon: the guest's memory is locked"]


def test_the_request() -> None:
    first, second = request(64 * MIB).decode().replace("}{", "}\n{").splitlines()
    assert json.loads(first) == {"execute": "qmp_capabilities"}
    assert json.loads(second) == {"execute": "balloon", "arguments": {"value": 64 * MIB}}


def descriptors() -> int:
    """How many are open in this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def asking(size: int) -> Plan:
    made = plan("-m", "1G", current=f"{size // MIB}M")
    assert made.starts_small
    return made


def test_a_request_is_read_first_and_its_client_goes_with_it() -> None:
    """What QEMU gets: the request, the client's own socket, and then the end."""
    with short_directory() as directory:
        path = f"{directory}/qmp.sock"
        before = descriptors()
        with socket.socket(fileno=listen(directory)) as listener:
            made = asking(64 * MIB)
            leave_request(made, path)
            assert descriptors() == before + 1  # the listener
            with socket.socket(socket.AF_UNIX) as next_one:
                next_one.connect(path)
                served, _ = listener.accept()
                with served:
                    served.settimeout(patient(10))
                    content, sockets, _, _ = socket.recv_fds(served, 4096, 4)
                    assert content == request(64 * MIB)
                    [client] = sockets
                    served.send(b"greeting")
                    assert os.read(client, 100) == b"greeting"
                    assert served.recv(1) == b""
                    os.close(client)
                    with pytest.raises(BrokenPipeError):
                        served.send(b"x")
    assert (made.current, made.remarks) == (64 * MIB, [])


@pytest.mark.parametrize("listens", [True, False])
def test_a_request_that_cannot_be_left_is_a_remark(listens: bool) -> None:  # noqa: FBT001
    """No process listens, or others have filled the backlog: the guest has all of its memory."""
    with short_directory() as directory, ExitStack() as stack:
        path = f"{directory}/s"
        if listens:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(path)
            listener.listen(0)
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
        before = descriptors()
        made = asking(64 * MIB)
        leave_request(made, path)
        assert made.current is None
        [remark] = made.remarks
        assert remark.startswith(f"QMPMEM_CURRENT is not followed: {path}: ")
        assert descriptors() == before
