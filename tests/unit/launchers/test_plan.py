"""What is added to a command line."""

import json
import os
import random
from collections.abc import Mapping, Sequence
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers.kvm_balloon import Capabilities
from launchers.kvm_options import ALONE, WITH_ARGUMENT, Line
from launchers.kvm_plan import IDS, Plan, decide, why_unchanged
from launchers.kvm_settings import Settings
from launchers.kvm_slots import CCW, MMIO, PCI, find_place
from tests.rig import chance
from tests.rig.launcher import draw_words

BOTH: Final = frozenset({"deflate-on-oom", "free-page-reporting"})


def able(
    *,
    json: bool = True,
    machine: str | None = "pc-i440fx-7.2",
    properties: Mapping[str, frozenset[str]] | None = None,
) -> Capabilities:
    known = {PCI: BOTH, MMIO: BOTH} if properties is None else dict(properties)
    return Capabilities(json=json, machine=machine, properties=known)


ABLE: Final = able()


def plan(
    *words: str,
    capabilities: Capabilities | None = ABLE,
    configs: Sequence[str | None] = (),
    **settings: str,
) -> Plan:
    values = {f"QMPMEM_{key.upper()}": value for key, value in settings.items()}
    return decide(Line(words, configs), Settings(values), capabilities)


def balloon(made: Plan) -> dict[str, object] | None:
    """The device that a plan adds, checked to be the last thing it adds."""
    if made.balloon is None:
        assert "virtio-balloon" not in " ".join(made.arguments)
        return None
    assert made.arguments[-2] == "-device"
    device: dict[str, object] = json.loads(made.arguments[-1])
    assert device["id"] == made.balloon
    return device


def test_an_ordinary_guest_gets_a_monitor_and_a_balloon() -> None:
    made = plan("-m", "1G", "-hda", "/srv/web1.qcow2")
    assert balloon(made) == {
        "driver": "virtio-balloon-pci",
        "id": "qmpmem0",
        "bus": "pci.0",
        "deflate-on-oom": True,
        "free-page-reporting": True,
    }
    assert (made.monitor, made.name, made.remarks) == ("qmpmem0", "web1", [])
    assert made.words("/run/x")[:2] == ["-readconfig", "/run/x"]
    assert made.words("/run/x")[2:] == made.arguments


@pytest.mark.parametrize(
    "words",
    [
        ["-h"],
        ["--help"],
        ["-version"],
        ["-machine", "help"],
        ["-M", "?"],
        ["-M", "pc,help"],
        ["-cpu", "help"],
        ["-device", "help"],
        ["-device", "virtio-balloon-pci,help"],
        ["-accel", "help"],
        ["-object", "help"],
        ["-audio-help"],
        ["-L", "help"],
        ["-L", "?"],
        *(["-net", f"nic,model={word}"] for word in ("help", "?")),
        ["-nic", "user,model=help"],
        ["-machine", "none"],
        ["-M", "none,accel=kvm:tcg"],
        ["-machine", "type=none"],
        ["-M", "pc", "-M", "none"],
        ["-qtest", "unix:x", "-machine", "q35"],
        ["-qtest-log", "/dev/null"],
        ["-dump-vmstate", "out.json"],
        ["-xen-attach", "-M", "xenpv"],
        # libvirt 9.0: virQEMUCapsInitQMPSingle
        [
            *(
                "-S",
                "-no-user-config",
                "-nodefaults",
                "-nographic",
                "-machine",
                "none,accel=kvm:tcg",
            ),
            *("-qmp", "unix:/x/qmp.monitor,server=on,wait=off", "-pidfile", "/x", "-daemonize"),
        ],
        [
            *("-name", "guest=a,debug-threads=on", "-S", "-machine", "pc-q35-7.2,accel=kvm"),
            *("-chardev", "socket,id=charmonitor,fd=24,server=on,wait=off"),
            *("-mon", "chardev=charmonitor,id=monitor,mode=control"),
        ],
    ],
)
def test_nothing_is_added_and_nothing_said(words: list[str]) -> None:
    made = plan(*words, mode="static", ksm="on")
    assert (made.arguments, made.monitor, made.balloon, made.remarks) == ([], None, None, [])
    assert why_unchanged(Line(words)) == ""


@pytest.mark.parametrize("words", [["-frobnicate"], ["-m"], ["-S", "-M=pc", "-h"]])
def test_nothing_is_added_to_what_is_not_understood(words: list[str]) -> None:
    made = plan(*words, mode="static", ksm="on")
    assert (made.arguments, made.monitor, made.balloon) == ([], None, None)
    why = "lacks its value" if words == ["-m"] else "not an option"
    assert why in made.remarks[0]


@pytest.mark.parametrize("words", [["-append", "-M none"], ["-name", "help"], ["-kernel", "-h"]])
def test_what_only_looks_like_an_option_is_none(words: list[str]) -> None:
    assert balloon(plan(*words))


@pytest.mark.parametrize(
    "words",
    [
        ["-device", "virtio-balloon"],
        ["-device", "virtio-balloon-pci,id=b"],
        ["-device", "id=b,driver=virtio-balloon-device"],
        ["-device", "virtio-balloon-pci-non-transitional"],
        ["-device", '{"driver": "virtio-balloon-pci"}'],
        ["-device", '{"id": "b", "driver" : "virtio-balloon-ccw"}'],
        ["-device", '{"driver": "virtio\\u002dballoon-pci"}'],
        ["-balloon", "virtio"],
        ["-set", "device.b.driver=virtio-balloon-pci"],
        ["-global", "virtio-balloon-pci.x=y"],
    ],
)
def test_a_guest_that_brings_a_balloon_gets_no_other(words: list[str]) -> None:
    made = plan(*words)
    assert balloon(made) is None
    assert (made.monitor, made.remarks) == ("qmpmem0", [])


def test_a_balloon_in_a_configuration_file_counts() -> None:
    made = plan(configs=['[device "b"]\n driver = "virtio-balloon-pci"\n'])
    assert balloon(made) is None
    assert made.remarks == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["-icount", "shift=7,rr=replay,rrfile=x"], "recorded"),
        (["-overcommit", "mem-lock=on"], "locked"),
        (["-overcommit", "cpu-pm=on,mem-lock=on-fault"], "locked"),
        (["-realtime", "mlock=on"], "locked"),
        (["-realtime", "mlock"], "locked"),
        (["-machine", "q35,memory-encryption=sev0"], "encrypted"),
        (["-machine", "q35", "-machine", "confidential-guest-support=sev0"], "encrypted"),
        (["-device", "vfio-pci,host=01:00.0"], "pinned"),
        (["-device", '{"driver":"vfio-pci"}'], "pinned"),
        (["-netdev", "type=vhost-vdpa,vhostdev=/dev/x,id=n"], "pinned"),
        (["-M", "isapc"], "isapc"),
        (["-M", "xenfv"], "xenfv"),
        (["-M", "s390-ccw-virtio"], "has none"),  # this emulator has no such device
        (["-M", "pc" * 99], "has none"),
        (["-global", "virtio-pci.disable-modern=on"], "-global virtio-pci.disable-modern"),
        (["-global", "driver=virtio-device,property=x,value=y"], "-global virtio-device.x"),
        (["-global", "virtio-pci.disable-legacy=on", "-global", "virtio-pci.x=y"], "-global"),
        (["-device", "pxb,id=pci.0,bus_nr=8"], "called pci.0"),
        (["-device", '{"driver":"e1000"'], "JSON"),
    ],
)
def test_a_guest_gets_only_a_monitor_and_hears_why(words: list[str], why: str) -> None:
    made = plan(*words)
    assert balloon(made) is None
    assert made.monitor == "qmpmem0"
    assert len(made.remarks) == 1
    assert why in made.remarks[0]


@pytest.mark.parametrize(
    "words",
    [
        ["-overcommit", "mem-lock=off"],
        ["-realtime", "mlock=off"],
        ["-icount", "shift=auto"],
        ["-machine", "accel=tcg"],
        ["-global", "virtio-pci.disable-legacy=on"],
        ["-global", "virtio-blk-pci.disable-modern=on"],
        ["-device", "e1000,id=net0"],
        ["-L", "/srv/help"],
        ["-device", "virtio-net-pci,id=my-virtio-balloon"],
        ["-M", "isapc", "-M", "pc"],
    ],
)
def test_near_misses_keep_the_balloon(words: list[str]) -> None:
    assert balloon(plan(*words))


@pytest.mark.parametrize("words", [["-incoming", "defer"], ["-loadvm", "saved"]])
def test_a_guest_that_arrives_gets_a_balloon_unless_told_otherwise(words: list[str]) -> None:
    assert balloon(plan(*words))
    assert balloon(plan(*words, incoming_balloon="on"))
    made = plan(*words, incoming_balloon="off")
    assert balloon(made) is None
    assert made.remarks == [f"no balloon: {words[0]}, and QMPMEM_INCOMING_BALLOON=off"]


@pytest.mark.parametrize(
    ("machine", "driver", "bus"),
    [
        ("pc", PCI, "pci.0"),
        ("pc-i440fx-7.2", PCI, "pci.0"),
        ("pc-i440fx-jammy", PCI, "pci.0"),
        ("pc-i440fx-rhel7.6.0", PCI, "pci.0"),
        ("pc-q35-9.2", PCI, "pcie.0"),
        ("pc-q35-7.2+pve1", PCI, "pcie.0"),
        ("pc-0.12", PCI, "pci.0"),
        ("q35", PCI, "pcie.0"),
        ("ubuntu", PCI, "pci.0"),
        ("ubuntu-q35", PCI, "pcie.0"),
        ("virt", PCI, "pcie.0"),
        ("virt-9.1", PCI, "pcie.0"),
        ("pseries-7.2", PCI, "pci.0"),
        ("microvm", MMIO, None),
        ("s390-ccw-virtio-8.0", CCW, None),
        ("s390-ccw-virtio", CCW, None),
        ("isapc", None, None),
        ("none", None, None),
        ("xenpv", None, None),
        ("raspi3b", None, None),
        ("pcx", None, None),
        ("", None, None),
    ],
)
def test_each_machine_has_its_device(machine: str, driver: str | None, bus: str | None) -> None:
    place = find_place(machine)
    assert (place.driver if place else None) == driver
    made = plan(
        "-M", machine or "x", capabilities=able(properties={PCI: BOTH, MMIO: BOTH, CCW: BOTH})
    )
    device = balloon(made) or {}
    assert (device.get("driver"), device.get("bus")) == (driver, bus)


@pytest.mark.parametrize(
    ("words", "configs", "driver"),
    [
        (["-machine", "accel=kvm"], [], PCI),
        (["-machine", "microvm,accel=kvm", "-machine", "accel=tcg"], [], MMIO),
        (["-machine", "type=microvm"], [], MMIO),
        ([], ['[machine]\ntype = "microvm"\n'], MMIO),
        (["-machine", "accel=tcg"], ['[machine]\n  type="q35"'], PCI),
    ],
)
def test_the_machine_is_found(words: list[str], configs: list[str], driver: str) -> None:
    device = balloon(plan(*words, configs=configs))
    assert device
    assert device["driver"] == driver


@pytest.mark.parametrize(
    ("words", "config", "capabilities", "why"),
    [
        pytest.param(
            ["-M", "pc"], '[machine]\ntype = "isapc"\n', ABLE, "machine", id="two machines"
        ),
        pytest.param([], "", able(machine=None), "machine", id="no machine, and no default"),
        pytest.param(
            ["-readconfig", "x"], None, ABLE, "a configuration file cannot be read", id="unreadable"
        ),
        pytest.param([], "", None, "", id="an emulator that says nothing"),
    ],
)
def test_what_is_not_known_may_be_a_reason_against_a_balloon(
    words: list[str], config: str | None, capabilities: Capabilities | None, why: str
) -> None:
    made = plan(*words, capabilities=capabilities, configs=[config])
    assert (made.monitor is not None, balloon(made), len(made.remarks)) == (True, None, 1)
    assert made.remarks[0].startswith("no balloon: ")
    assert why in made.remarks[0]


def test_an_emulator_without_a_default_machine_gets_a_balloon_with_one() -> None:
    assert balloon(plan("-M", "virt", capabilities=able(machine=None)))


def test_only_known_properties_are_set() -> None:
    made = plan(capabilities=able(properties={PCI: frozenset({"deflate-on-oom"})}))
    assert balloon(made) == {
        "driver": PCI,
        "id": "qmpmem0",
        "bus": "pci.0",
        "deflate-on-oom": True,
    }


class TestOldEmulators:
    """Without JSON the balloon would be created before the disks of -drive."""

    OLD: Final = able(json=False)

    def test_the_balloon_takes_a_high_slot(self) -> None:
        made = plan(capabilities=self.OLD)
        assert made.arguments[0] == "-device"
        assert made.arguments[1].split(",") == [
            "virtio-balloon-pci",
            "id=qmpmem0",
            "bus=pci.0",
            "addr=0x1e",
            "deflate-on-oom=on",
            "free-page-reporting=on",
        ]

    @pytest.mark.parametrize("address", ["addr=0x1e", "addr=1e.1", "addr=0X1E"])
    def test_unless_it_is_taken(self, address: str) -> None:
        made = plan("-device", f"e1000,{address}", capabilities=self.OLD)
        assert (made.balloon, made.monitor) == (None, "qmpmem0")
        assert plan("-device", f"e1000,bus=b,{address}", capabilities=self.OLD).balloon
        assert plan("-append", address, capabilities=self.OLD).balloon
        assert plan(*["-device", "e1000"] * 27, capabilities=self.OLD).balloon is None

    def test_other_machines_get_none(self) -> None:
        assert plan("-M", "microvm", capabilities=self.OLD).balloon is None


class TestIds:
    def test_a_taken_id_is_left_alone(self) -> None:
        made = plan("-device", "e1000,id=qmpmem0", configs=['[chardev "qmpmem1"]'])
        assert (made.monitor, made.balloon) == ("qmpmem2", "qmpmem2")

    @pytest.mark.parametrize(
        "text",
        [
            '{"driver":"e1000","id":"\\u0071mpmem0"}',
            "{'driver':'e1000','id':'qmpm\\u0065m0'}",
            '{"x":{"y":["\\u0071mpmem0"]}}',
        ],
    )
    @pytest.mark.parametrize("option", ["-device", "-netdev", "-object", "-blockdev"])
    def test_an_id_that_is_escaped_is_taken(self, option: str, text: str) -> None:
        assert plan(option, text).monitor == "qmpmem1"

    def test_what_cannot_be_read_may_have_the_usual_ones(self) -> None:
        assert plan("-readconfig", "x", configs=[None]).monitor not in IDS

    def test_all_taken(self) -> None:
        made = plan("-append", " ".join(IDS))
        assert (made.monitor, made.balloon, made.arguments) == (None, None, [])
        assert "ids" in made.remarks[0]


class TestMemory:
    def test_static(self) -> None:
        made = plan("-m", "1G", mode="static")
        assert made.arguments == ["-mem-prealloc", "-machine", "mem-merge=off"]
        assert (made.static, made.ksm, made.balloon, made.monitor) == (True, False, None, "qmpmem0")
        assert made.remarks == []

    def test_static_is_never_merged(self) -> None:
        assert plan(mode="static", ksm="on").ksm is False

    @pytest.mark.parametrize(
        ("words", "why"),
        [
            (["-object", "memory-backend-ram,id=v,size=1G,reserve=off"], "reserve=off"),
            (["-object", "qom-type=memory-backend-memfd,id=v,reserve=no"], "reserve=no"),
            (["-object", '{"qom-type":"memory-backend-ram","reserve":false}'], "reserve=off"),
            (["-object", "memory-backend-file,id=v,mem-path=f,readonly=on"], "readonly=on"),
            (["-device", "virtio-mem-pci,memdev=v"], "virtio-mem-pci"),
            (["-device", '{"driver":"nvdimm","memdev":"v"}'], "nvdimm"),
            (["-object", "{"], "can be read"),
        ],
    )
    def test_not_with_memory_that_cannot_be(self, words: list[str], why: str) -> None:
        made = plan(*words, mode="static")
        assert made.arguments == ["-machine", "mem-merge=off"]
        assert (made.static, len(made.remarks)) == (True, 1)
        assert why in made.remarks[0]

    @pytest.mark.parametrize(
        "words",
        [
            ["-object", "memory-backend-ram,id=v,size=1G,reserve=on", "-device", "e1000"],
            ["-object", "iothread,id=reserve", "-object", "rng-random,id=r,reserve=off"],
            ["-object", "memory-backend-ram,id=v,size=1G", "-device", "pc-dimm,memdev=v"],
        ],
    )
    def test_but_with_all_other(self, words: list[str]) -> None:
        assert plan(*words, mode="static").arguments[0] == "-mem-prealloc"

    def test_a_file_that_cannot_be_read_may_have_such_memory(self) -> None:
        made = plan("-readconfig", "x", configs=[None], mode="static")
        assert "-mem-prealloc" not in made.arguments

    def test_preallocation_is_asked_for_once(self) -> None:
        assert "-mem-prealloc" not in plan("-mem-prealloc", mode="static").arguments

    @pytest.mark.parametrize("choice", ["on", "off"])
    def test_merging(self, choice: str) -> None:
        made = plan("-M", "q35", ksm=choice)
        assert made.arguments[:2] == ["-machine", f"mem-merge={choice}"]
        assert made.ksm is (choice == "on")
        assert balloon(made)

    def test_the_user_decides_about_merging(self) -> None:
        made = plan("-M", "q35,mem-merge=on", ksm="off")
        assert "mem-merge" not in " ".join(made.arguments)
        assert made.ksm is True

    def test_without_a_word_it_stays_open(self) -> None:
        assert plan().ksm is None

    def test_no_balloon_wanted(self) -> None:
        made = plan(balloon="off")
        assert (made.arguments, made.monitor, made.remarks) == ([], "qmpmem0", [])


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["-name", "foo"], "foo"),
        (["-name", "guest=foo,debug-threads=on"], "foo"),
        (["-name", "foo,process=bar"], "foo"),
        (["-name", "a,,b"], "a,b"),
        (["-name", "guest=a,,b,process=x"], "a,b"),
        (["-name", "one", "-name", "two"], "two"),
        (["-name", "a", "-name", "debug-threads=on"], "a"),
        (["-name", "../x\n\udcff"], "../x\n\udcff"),
        (["-name", "", "-hda", "disk.img"], "disk"),
        (["-drive", "file=/dev/vg/web,if=virtio,format=raw"], "web"),
        (["-drive", "if=pflash,file=/usr/share/OVMF_CODE.fd", "-drive", "file=w.qcow2"], "w"),
        (["/srv/old.img"], "old"),
        (["-cdrom", "/iso/debian-12.5.0.iso"], "debian-12.5.0"),
        (["-kernel", "/boot/vmlinuz-6.1"], "vmlinuz-6.1"),
        (["-hda", "my disk.img", "-kernel", "k"], "my disk"),
        (["-hda", "nbd://host:10809"], "host-10809"),
        ([], None),
    ],
)
def test_the_name(words: list[str], name: str | None) -> None:
    assert plan(*words).name == name


def test_a_daemon_is_known() -> None:
    assert plan("-daemonize").daemonize
    assert not plan("-append", "-daemonize").daemonize


WORDS: Final = st.one_of(
    st.sampled_from(sorted(ALONE | WITH_ARGUMENT)).map("-".__add__),
    st.sampled_from(
        ["pc", "q35,accel=tcg", "virtio-balloon-pci", "{", '{"driver":"e1000"}', "help"]
    ),
    st.text(max_size=30),
    st.binary(max_size=30).map(
        lambda raw: raw.replace(b"\0", b"").decode(errors="surrogateescape")
    ),
    st.text(alphabet="a,=\"'{}[]-", max_size=60),
)


@given(
    words=st.lists(WORDS, max_size=12),
    configs=st.lists(st.none() | st.text(max_size=80), max_size=2),
    mode=st.sampled_from(["", "static", "balloon"]),
    ksm=st.sampled_from(["", "on", "off"]),
    old=st.booleans(),
)
def test_what_is_added_is_always_of_a_known_form(
    words: list[str], configs: list[str | None], mode: str, ksm: str, *, old: bool
) -> None:
    made = plan(*words, configs=configs, capabilities=able(json=not old), mode=mode, ksm=ksm)
    rest = list(made.words("/run/guest/monitor.conf" if made.monitor else None))
    if rest[:1] == ["-readconfig"]:
        assert made.monitor is not None
        rest = rest[2:]
    if rest[:1] == ["-mem-prealloc"]:
        rest = rest[1:]
    if rest[:1] == ["-machine"]:
        assert rest[1] in ("mem-merge=on", "mem-merge=off")
        rest = rest[2:]
    assert bool(rest) == (made.balloon is not None)
    if rest:
        assert rest[0] == "-device"
        assert made.balloon == made.monitor
        assert not any((made.balloon or "") in word for word in words)
    if why_unchanged(Line(words, configs)) is not None:
        assert made.words(None) == []


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_random_command_lines_get_a_plan(count: int) -> None:
    """Row F77."""
    kinds, starts_small = set[bool](), False
    for seed in chance.cases(count, 0, 1):
        words = [os.fsdecode(word) for word in draw_words(random.Random(seed))]  # noqa: S311
        before = list(words)
        current = random.Random(seed).choice(("", "25%", "64M"))  # noqa: S311 - no secret
        made = decide(Line(words), Settings({"QMPMEM_CURRENT": current}), ABLE)
        assert words == before, seed
        assert not made.starts_small or None not in (made.balloon, made.current), seed
        starts_small |= made.starts_small
        assert made.words("x") == made.words("x"), seed
        assert made.arguments == [] or made.arguments[0] == "-device", seed
        kinds.add(made.balloon is not None)
    assert kinds == {True, False}
    assert starts_small
