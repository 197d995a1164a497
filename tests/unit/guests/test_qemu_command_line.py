"""Command lines of QEMU, as people, scripts and libvirt write them."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.guests import qemu_command_line
from qmpmem.guests.qemu_command_line import CommandLine


def parse(line: str) -> CommandLine:
    return qemu_command_line.parse(["qemu-system-x86_64", *shlex.split(line)])


@pytest.mark.parametrize(
    ("line", "paths"),
    [
        ("-qmp unix:/a,server=on,wait=off", ("/a",)),
        ("-qmp unix:/a,server,nowait", ("/a",)),
        ("--qmp unix:/a,server,nowait", ("/a",)),
        ("-qmp-pretty unix:/a,server=on", ("/a",)),
        ("-qmp unix:a.sock,server", ("a.sock",)),
        ("-qmp unix:/a,,b,server=on", ("/a,b",)),
        ("-qmp unix:/a -qmp unix:/b", ("/a", "/b")),
        ("-chardev socket,id=m,path=/a,server=on -mon chardev=m,mode=control", ("/a",)),
        ("-chardev socket,id=m,path=/a,server=on -mon m,mode=control", ("/a",)),
        ("-mon mode=control,chardev=m -chardev path=/a,,b,id=m,backend=socket", ("/a,b",)),
        ("-chardev socket,id=m,path=/a -qmp chardev:m", ("/a",)),
        ("-chardev socket,id=m,path=/a -mon chardev=m", ()),  # a monitor for people
        ("-chardev socket,id=m,path=/a -mon chardev=m,mode=readline", ()),
        ("-chardev socket,id=s,path=/a -serial chardev:s", ()),
        ("-monitor unix:/a,server=on", ()),
        ("-qmp none", ()),
        ("-qmp", ()),
    ],
)
def test_qmp_sockets_are_found_however_they_are_written(line: str, paths: tuple[str, ...]) -> None:
    found = parse(line)
    assert found.paths == paths
    assert found.descriptors == ()


@pytest.mark.parametrize(
    "line",
    [
        "-qmp stdio",
        "-qmp pty",
        "-qmp telnet:localhost:4444,server=on",
        "-chardev stdio,id=m -mon chardev=m,mode=control",
    ],
)
def test_qmp_on_something_else_is_said(line: str) -> None:
    found = parse(line)
    assert found.other
    assert found.paths == ()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("-monitor unix:/a,server=on", {"human": ("/a",)}),
        ("-chardev socket,id=m,path=/a -mon chardev=m", {"human": ("/a",)}),
        ("-chardev socket,id=m,path=/a -mon m,mode=readline", {"human": ("/a",)}),
        ("-chardev socket,id=m,path=/a -monitor chardev:m", {"human": ("/a",)}),
        ("-chardev socket,id=m,path=/a,mux=on -mon m", {}),
        ("-serial mon:unix:/a", {}),
        ("-monitor stdio", {}),
        ("-monitor none", {}),
        ("-qmp unix:x,abstract=on,server=on", {"paths": ("@x",)}),
        ("-chardev socket,id=m,path=x,abstract=on -mon m,mode=control", {"paths": ("@x",)}),
        ("-qmp unix:@x,server=on", {"paths": ("./@x",)}),
        ("-qmp tcp:localhost:4444,server=on", {"ports": (4444,)}),
        ("-qmp tcp:[::1]:4444,server=on", {"ports": (4444,)}),
        ("-qmp tcp::4444,server=on", {"ports": (4444,)}),
        ("-chardev socket,id=m,host=localhost,port=4444 -qmp chardev:m", {"ports": (4444,)}),
        ("-monitor tcp:127.0.0.1:55,server=on", {"human_ports": (55,)}),
    ],
)
def test_monitors_of_every_kind(line: str, found: dict[str, tuple[object, ...]]) -> None:
    seen = parse(line)
    empty: tuple[object, ...] = ()
    kinds = ("paths", "human", "ports", "human_ports")
    assert {kind: getattr(seen, kind) for kind in kinds} == dict.fromkeys(kinds, empty) | found


CONFIG = """# made by a launcher
[chardev "m"]
  backend = "socket"
  path = "/run/a.qmp"

[mon "m"]
  chardev = "m"
  mode = "control"
"""


def test_a_file_brings_monitors_like_options() -> None:
    words = ["kvm", "-readconfig", "/a.cfg", "-readconfig", "/b.cfg"]
    found = qemu_command_line.parse(words, {"/a.cfg": CONFIG})
    assert found.paths == ("/run/a.qmp",)
    assert found.unread == ("/b.cfg",)
    assert qemu_command_line.config_files(words) == ("/a.cfg", "/b.cfg")


def test_what_qemu_passes_over_in_a_file_is_passed_over() -> None:
    odd = (
        CONFIG.replace("\n", "\r\n")
        .replace('"]', '" ] # "x"')
        .replace('[mon "m"', '[mon\t "m"')
        .replace(" = ", "\v=\t")
        .replace('a.qmp"', 'a.qmp" # "not this"')
    )
    assert qemu_command_line.parse(["kvm", "-readconfig", "/a"], {"/a": odd}).paths == (
        "/run/a.qmp",
    )


@given(st.text())
def test_any_file_can_be_read(text: str) -> None:
    qemu_command_line.parse(["kvm", "-readconfig", "x"], {"x": text})


def test_a_socket_handed_over_is_known_by_its_descriptor() -> None:
    found = parse("-chardev socket,id=m,fd=7,server=on -mon chardev=m,mode=control")
    assert found.descriptors == (7,)
    assert not found.other
    for odd in ("9" * 5000, "²", "-1"):
        found = parse(f"-chardev socket,id=m,fd={odd},server=on -mon chardev=m,mode=control")
        assert found.descriptors == ()


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("-name db1", "db1"),
        ("-name guest=db1,debug-threads=on", "db1"),
        ("-name 'web,,1 \u00fc,process=x'", "web,1 \u00fc"),
        ("-name process=x", None),
        ("-name a -name b", "b"),
        ("-m 64", None),
    ],
)
def test_names(line: str, name: str | None) -> None:
    assert parse(line).name == name


@pytest.mark.parametrize(
    "line",
    [
        "-chardev socket,id=charmonitor,fd=30,server=on -mon chardev=charmonitor,mode=control",
        """-object '{"id":"masterKey0","file":"/var/lib/libvirt/qemu/domain-3-a/key.aes"}'""",
        "-chardev socket,id=x,path=/home/u/.config/libvirt/qemu/lib/domain-1-a/monitor.sock",
    ],
)
def test_libvirt_is_known_by_what_it_always_writes(line: str) -> None:
    assert parse(line).manager == "libvirt"


def test_a_disk_image_of_libvirt_does_not_make_a_guest_its_own() -> None:
    assert parse("-hda /var/lib/libvirt/images/a.qcow2").manager is None


@pytest.mark.parametrize(
    ("line", "accelerators"),
    [
        ("-accel tcg,tb-size=32", ("tcg",)),
        ("-accel kvm -accel tcg", ("kvm", "tcg")),
        ("-machine q35,accel=kvm:tcg", ("kvm", "tcg")),
        ("-M accel=tcg", ("tcg",)),
        ("-enable-kvm", ("kvm",)),
        ("-machine q35", ()),
    ],
)
def test_accelerators_asked_for(line: str, accelerators: tuple[str, ...]) -> None:
    assert parse(line).accelerators == accelerators


@pytest.mark.parametrize("line", ["-overcommit mem-lock=on", "-overcommit cpu-pm=on,mem-lock=on"])
def test_locked_memory(line: str) -> None:
    assert parse(line).locked
    assert not parse(line.replace("mem-lock=on", "mem-lock=off")).locked


@given(st.lists(st.text()))
def test_any_words_can_be_read(words: list[str]) -> None:
    qemu_command_line.parse(words)


@given(st.text(min_size=1))
def test_a_doubled_comma_is_one(path: str) -> None:
    text = "path=" + path.replace(",", ",,")
    assert qemu_command_line.fields(f"socket,{text},server=on", "backend") == {
        "backend": "socket",
        "path": path,
        "server": "on",
    }
