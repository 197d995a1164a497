"""Command lines whose guests give nothing back by a balloon, and those that are only like them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers.kvm_balloon import Capabilities
from launchers.kvm_memory import Memory, is_on_hugetlbfs, look, read_mounts
from launchers.kvm_options import Line
from launchers.kvm_plan import Plan, decide
from launchers.kvm_settings import Settings
from launchers.kvm_slots import PCI
from qmpmem.model import obstacles

MOUNTS: Final = """\
22 1 0:20 / / rw shared:1 - ext4 /dev/vda1 rw
23 22 0:21 / /dev rw - devtmpfs dev rw
31 22 0:31 / /hp rw - hugetlbfs none rw,pagesize=2M
32 31 0:32 / /hp/over rw - tmpfs none rw
33 22 0:33 / /with\\040space rw - hugetlbfs none rw
34 22 0:34 / /hp2 rw - tmpfs none rw
35 22 0:35 / /hp2 rw - hugetlbfs none rw
36 22 0:36 / /gone rw - hugetlbfs none rw
37 22 0:37 / /gone rw - tmpfs none rw
"""
LOCKED, ENCRYPTED, PINNED, HUGE, COPY = ("locked", "encrypted", "pinned", "huge pages", "copy")
TEXT_LIMIT: Final = 200


def judge(*words: str, configs: Sequence[str] = ()) -> Memory:
    return look(Line(words, configs), lambda: MOUNTS)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["-overcommit", "mem-lock=on"], LOCKED),
        (["-overcommit", "mem-lock=yes"], LOCKED),
        (["-overcommit", "mem-lock"], LOCKED),
        (["-overcommit", "mem-lock=on-fault,cpu-pm=on"], LOCKED),
        (["-realtime", "mlock=on"], LOCKED),
        (["-realtime", "mlock"], LOCKED),
        (["-M", "q35,memory-encryption=sev0"], ENCRYPTED),
        (["-M", "q35", "-machine", "confidential-guest-support=tdx0"], ENCRYPTED),
        (["-device", "vfio-pci,host=01:00.0"], PINNED),
        (["-device", '{"driver": "vfio-pci", "host": "01:00.0"}'], PINNED),
        (["-device", "vfio-ap,sysfsdev=/sys/devices/vfio_ap/matrix/x"], PINNED),
        (["-device", "vfio-ccw,sysfsdev=/x"], PINNED),
        (["-device", "vfio-platform,host=x"], PINNED),
        (["-device", '{"driver":"vfio-user-pci","socket":{"path":"/x","type":"unix"}}'], PINNED),
        (["-object", "iommufd,id=i0", "-device", "vfio-pci,iommufd=i0"], PINNED),
        (["-device", "vhost-vdpa-device-pci,vhostdev=/dev/vhost-vdpa-0"], PINNED),
        (["-netdev", "vhost-vdpa,vhostdev=/dev/vhost-vdpa-0,id=n"], PINNED),
        (["-netdev", '{"type":"vhost-vdpa","id":"n"}'], PINNED),
        (["-nic", "vhost-vdpa,vhostdev=/dev/vhost-vdpa-0"], PINNED),
        (["-drive", "file=nvme://0000:01:00.0/1,if=none,id=n"], PINNED),
        (["-drive", "if=none,file.driver=nvme,file.device=0000:01:00.0"], PINNED),
        (["-drive", 'file=json:{"driver": "nvme",, "device": "x"}'], PINNED),
        (["-hda", "nvme://0000:01:00.0/1"], PINNED),
        (["nvme://0000:01:00.0/1"], PINNED),
        (["-blockdev", "nvme,node-name=n,device=0000:01:00.0,namespace=1"], PINNED),
        (["-blockdev", "driver=nvme,node-name=n,device=0000:01:00.0"], PINNED),
        (["-blockdev", "driver=raw,node-name=r,file.driver=nvme,file.namespace=1"], PINNED),
        (["-blockdev", '{"driver":"raw","file":{"driver" : "nvme", "namespace":1}}'], PINNED),
        (["-blockdev", "driver=virtio-blk-vfio-pci,path=/sys/x,node-name=n"], PINNED),
        (["-blockdev", '{"node-name":"n","driver":"virtio-blk-vhost-vdpa"}'], PINNED),
        (["-mem-path", "/hp"], HUGE),
        (["--mem-path", "/hp/guest1", "-mem-prealloc"], HUGE),
        (["-mem-path", "/with space/x"], HUGE),
        (["-mem-path", "/hp2"], HUGE),
        (["-object", "memory-backend-file,id=m,size=1G,mem-path=/hp,share=on"], HUGE),
        (["-object", '{"qom-type":"memory-backend-file","id":"m","mem-path":"/hp/x"}'], HUGE),
        (["-object", "memory-backend-memfd,id=m,size=1G,hugetlb=on"], HUGE),
        (["-object", "memory-backend-memfd,id=m,hugetlb,size=1G"], HUGE),
        (["-object", "qom-type=memory-backend-memfd,id=m,hugetlb=true,hugetlbsize=2M"], HUGE),
        (["-object", '{"qom-type": "memory-backend-memfd", "id": "m", "hugetlb": true}'], HUGE),
        (["-mem-path", "/proc/nonexistent/template"], COPY),
        (["-object", "memory-backend-file,id=m,size=1G,mem-path=/proc/nonexistent/t"], COPY),
        (["-object", "memory-backend-file,id=m,mem-path=/proc/nonexistent/t,share=off"], COPY),
        (["-object", '{"qom-type":"memory-backend-file","mem-path":"/proc/nonexistent/t"}'], COPY),
    ],
)
def test_a_balloon_frees_nothing(words: list[str], why: str) -> None:
    found = judge(*words)
    assert found.unmovable is not None
    assert why in found.unmovable


@pytest.mark.parametrize(
    "config",
    [
        '[device "d"]\n driver = "vfio-pci"\n host = "01:00.0"\n',
        '[object "m"]\n qom-type = "memory-backend-memfd"\n hugetlb = "on"\n',
        '[object "m"]\n qom-type = "memory-backend-file"\n mem-path = "/hp"\n share = "on"\n',
        '[drive "d"]\n file = "nvme://0000:01:00.0/1"\n',
        '[netdev "n"]\n type = "vhost-vdpa"\n',
        '[overcommit]\n mem-lock = "on"\n',
        '[machine]\n confidential-guest-support = "s"\n',
    ],
)
def test_a_configuration_file_says_so_as_well(config: str) -> None:
    assert judge(configs=[config]).unmovable


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-overcommit", "mem-lock=off"],
        ["-overcommit", "mem-lock=no,cpu-pm=on"],
        ["-realtime", "mlock=off"],
        ["-device", "nvme,drive=n,serial=x", "-drive", "file=/d,if=none,id=n"],
        ["-drive", "file=/srv/driver=nvme-backup,if=none,id=vfio-pci"],
        ["-blockdev", "driver=file,filename=/srv/nvme.img,node-name=nvme"],
        ["-blockdev", '{"driver":"file","filename":"/srv/a","node-name":"nvme"}'],
        ["-mem-path", "/dev"],
        ["-mem-path", "/"],
        ["-mem-path", "/tmp"],
        ["-object", "memory-backend-ram,id=m,size=1G,share=on"],
        ["-object", "memory-backend-memfd,id=m,size=1G,share=on,hugetlb=off"],
        ["-object", '{"qom-type":"memory-backend-memfd","hugetlb":false,"share":true}'],
        ["-object", "memory-backend-file,id=m,mem-path=/proc/nonexistent/s,share=on"],
        ["-object", '{"qom-type":"memory-backend-file","mem-path":"/nope","share":true}'],
        ["-object", "memory-backend-file,id=m,mem-path=/hp/over,share=on"],
        ["-object", "memory-backend-file,id=m,mem-path=/gone/x,share=on"],
        ["-object", "memory-backend-file,id=m,mem-path=/hpx/y,share=on"],
        ["-object", "rng-random,filename=/hp,id=r"],
    ],
)
def test_a_balloon_frees_something(words: list[str]) -> None:
    assert judge(*words).unmovable is None


@pytest.mark.parametrize(
    "words",
    [
        ["-mem-prealloc"],
        ["-object", "memory-backend-ram,id=m,size=1G,prealloc=on"],
        ["-object", '{"qom-type":"memory-backend-ram","id":"m","prealloc":true}'],
    ],
)
def test_preallocated_memory_is_freed_and_not_kept(words: list[str]) -> None:
    found = judge(*words)
    assert (found.unmovable, "not kept" in (found.note or "")) == (None, True)
    assert judge("-object", "memory-backend-ram,id=m,prealloc=off").note is None


def test_the_table_of_mounts_is_read_only_for_a_path() -> None:
    def mounts() -> str:
        raise AssertionError

    assert look(Line(["-m", "1G", "-object", "memory-backend-memfd,hugetlb=on"]), mounts).unmovable


def test_the_real_table_of_mounts_is_understood(tmp_path: Path) -> None:
    assert not is_on_hugetlbfs(str(tmp_path), read_mounts())
    assert " - proc " in read_mounts()


def test_a_link_leads_to_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/hp")
    assert is_on_hugetlbfs(f"{tmp_path}/link/x", MOUNTS)


@given(st.text(max_size=TEXT_LIMIT), st.text(max_size=20))
def test_any_table_and_any_path_is_an_answer(text: str, path: str) -> None:
    assert is_on_hugetlbfs(path.replace("\0", ""), text) in (True, False)


@given(st.sampled_from(["drive", "blockdev", "object", "netdev", "machine"]), st.text())
def test_any_argument_is_an_answer(option: str, text: str) -> None:
    judge(f"-{option}", text)


def plan(*words: str, **settings: str) -> Plan:
    able = Capabilities(json=True, machine="pc", properties={PCI: frozenset()})
    values = {f"QMPMEM_{key.upper()}": value for key, value in settings.items()}
    return decide(Line(words), Settings(values), able)


def test_a_guest_that_gives_nothing_gets_no_balloon_and_its_plan_keeps_why() -> None:
    made = plan("-object", "memory-backend-memfd,id=m,hugetlb=on")
    assert (made.balloon, made.no_balloon, made.unmovable) == (
        None,
        "the guest's memory is in huge pages",
        "the guest's memory is in huge pages",
    )
    assert made.remarks == ["no balloon: the guest's memory is in huge pages"]


def test_a_balloon_of_the_user_s_is_said_to_free_nothing() -> None:
    made = plan("-object", "memory-backend-memfd,hugetlb=on", "-device", "virtio-balloon")
    assert (made.balloon, made.no_balloon) == (None, None)
    assert made.unmovable
    assert made.remarks == ["its balloon frees nothing: the guest's memory is in huge pages"]


def test_a_note_goes_with_a_balloon_of_ours_only() -> None:
    assert plan("-mem-prealloc").note in plan("-mem-prealloc").remarks
    assert plan("-mem-prealloc", "-device", "virtio-balloon,deflate-on-oom=on").note is None
    assert plan("-mem-prealloc", mode="static").remarks == []


@pytest.mark.parametrize(
    ("words", "settings", "why"),
    [
        (["-incoming", "defer"], {"incoming_balloon": "off"}, "-incoming"),
        (["-device", "e1000"] * 30, {}, "slot"),
        (["-M", "isapc"], {}, "isapc"),
        (["-overcommit", "mem-lock=on"], {}, "locked"),
        ([], {"balloon": "off"}, "QMPMEM_BALLOON=off"),
        ([], {"mode": "static"}, None),
        (["-device", "virtio-balloon"], {}, None),
        ([], {}, None),
    ],
)
def test_the_reason_for_having_none_is_kept(
    words: list[str], settings: dict[str, str], why: str | None
) -> None:
    kept = plan(*words, **settings).no_balloon
    assert kept is why or (why is not None and kept is not None and why in kept)


@pytest.mark.parametrize(
    ("words", "lacks"),
    [
        (["-device", "virtio-balloon"], True),
        (["-device", "virtio-balloon-pci,id=b,deflate-on-oom=off"], True),
        (["-device", '{"driver":"virtio-balloon-pci","deflate-on-oom":false}'], True),
        (["-device", '{"driver":"virtio-balloon-pci","deflate-on-oom": true}'], False),
        (["-device", "virtio-balloon-pci,deflate-on-oom=on"], False),
        (["-device", "virtio-balloon", "-global", "virtio-balloon-pci.deflate-on-oom=on"], False),
        ([], False),
    ],
)
def test_a_balloon_without_deflate_on_oom_is_noted_in_silence(
    words: list[str], *, lacks: bool
) -> None:
    made = plan(*words)
    assert (made.note == obstacles.NO_DEFLATE) == lacks
    assert made.remarks == []
