"""What a guest without a name is called: the same at each start."""

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers.kvm_options import Line, read_json
from launchers.kvm_plan import guest_name
from launchers.kvm_source import name_of_file, name_of_node

OVMF = "/usr/share/OVMF/OVMF_CODE.fd"


def name(line: str, *configs: str) -> str | None:
    return guest_name(Line(shlex.split(line), configs))


@pytest.mark.parametrize(
    ("line", "called"),
    [
        ("", None),
        ("-m 1G -nographic", None),
        # files
        ("-hda /vm/web01.qcow2", "web01"),
        ("--hda /vm/WEB01.IMG", "WEB01"),
        ("/vm/web01.raw -m 1G", "web01"),
        ("-drive file=/vm/web01.qcow2,if=virtio,format=qcow2", "web01"),
        ("-drive if=virtio,file=/vm/a,,b.img", "a,b"),
        ("-hda /vm/a,,b.img", "a,,b"),
        ("-drive file=file:/vm/web01.img", "web01"),
        ("-drive file.filename=/vm/web01.img,format=raw", "web01"),
        ("-drive driver=qcow2,file.driver=file,file.filename=/vm/web01.qcow2", "web01"),
        ("-drive file=/vm/web01.qcow2.img", "web01"),
        ("-drive 'file=/vm/Windows 10.vhdx'", "Windows 10"),
        ("-drive file=/dev/vg0/web01,format=raw", "web01"),
        ("-drive file=/dev/mapper/vg0-web01", "vg0-web01"),
        ("-drive file=/dev/zvol/tank/web01", "web01"),
        ("-drive file=/dev/disk/by-path/pci-0000:00:1f.2-ata-1", "pci-0000:00:1f.2-ata-1"),
        ("-drive file=fat:rw:/srv/web01", "web01"),
        ("-drive file=blkdebug:/etc/blkdebug.conf:/vm/web01.img", "web01"),
        ("-sd /vm/card.img", "card"),
        # what is behind a protocol
        ("-drive file=rbd:pool/web01:id=admin:conf=/etc/ceph/ceph.conf,if=virtio", "web01"),
        ("-drive file=rbd:pool/web01", "web01"),
        ("-drive file=rbd:pool/space/web01@before:conf=/etc/ceph.conf", "web01"),
        (r"-drive 'file=rbd:pool/a\:b\@c:id=admin'", "a:b@c"),
        ("-drive file.driver=rbd,file.pool=p,file.image=web01,file.conf=/etc/ceph.conf", "web01"),
        ("-drive driver=rbd,pool=p,image=web01,conf=/etc/ceph/ceph.conf", "web01"),
        ("-drive file=nbd:storage:10809:exportname=web01", "web01"),
        ("-drive file=nbd:unix:/run/nbd.sock:exportname=web01", "web01"),
        ("-drive file=nbd:unix:/run/web01.sock", "web01"),
        ("-hda nbd://storage:10809/web01", "web01"),
        ("-hda nbd://storage:10809", "storage-10809"),
        ("-drive file=nbd+unix:///web01?socket=/run/nbd.sock", "web01"),
        ("-drive file=nbd+unix:///?socket=/run/web01.img", "web01"),
        ("-drive file.driver=nbd,file.host=storage,file.port=10809,file.export=web01", "web01"),
        ("-drive driver=nbd,server.type=unix,server.path=/run/web01", "web01"),
        ("-drive driver=nbd,server.type=inet,server.host=st,server.port=10809", "st-10809"),
        ("-drive file=iscsi://192.0.2.1/iqn.2001-04.com.example:web01/0", "web01"),
        ("-drive file=iscsi://joe%secret@st:3260/iqn.2001-04.com.example:st/3", "st-lun-3"),
        ("-drive driver=iscsi,transport=tcp,portal=st,target=iqn.x:web01,lun=2", "web01-lun-2"),
        ("-drive file=nvme://0000:01:00.0/1", "nvme-0000-01-00.0-1"),
        ("-drive driver=nvme,device=0000:01:00.0,namespace=1", "nvme-0000-01-00.0-1"),
        ("-drive file=https://joe:secret@host/images/web01.qcow2?token=x", "web01"),
        ("-drive file=ssh://joe@host/vm/web01.img?host_key_check=no", "web01"),
        ("-drive file=gluster+tcp://host/volume/web01.img?debug=4", "web01"),
        ("-drive file=nfs://host/export/web01.img", "web01"),
        ("-drive file=sheepdog:web01", "web01"),
        ("-drive file=null-co://", None),
        ("-drive file=/dev/fdset/2", None),
        ("-drive file=/dev/null", None),
        # block nodes
        ("-blockdev driver=file,filename=/vm/web01.img,node-name=d", "web01"),
        ("-blockdev file,filename=/vm/web01.img,node-name=d", "web01"),
        (
            "-blockdev driver=qcow2,node-name=d,file.driver=file,file.filename=/vm/web01.qcow2",
            "web01",
        ),
        ("-blockdev driver=host_device,filename=/dev/vg0/web01,node-name=d", "web01"),
        (
            "-blockdev driver=nvme,device=0000:01:00.0,namespace=1,node-name=d",
            "nvme-0000-01-00.0-1",
        ),
        ("-blockdev driver=raw,node-name=d,file.driver=rbd,file.pool=p,file.image=web01", "web01"),
        ("-blockdev driver=nbd,export=web01,server.type=inet,server.host=h,node-name=d", "web01"),
        ("-blockdev driver=iscsi,target=iqn.x:web01,lun=1,node-name=d", "web01-lun-1"),
        (
            "-blockdev driver=throttle,node-name=t,file.driver=raw,file.file.filename=/vm/web01",
            "web01",
        ),
        (
            "-blockdev driver=quorum,children.0.file.filename=/vm/web01.img,vote-threshold=1",
            "web01",
        ),
        ("""-blockdev '{"driver":"file","filename":"/vm/web01.img","node-name":"d"}'""", "web01"),
        (
            """-blockdev '{"driver":"qcow2","node-name":"d","file":
                {"driver":"rbd","pool":"p","image":"web01","conf":"/etc/ceph/ceph.conf"}}'""",
            "web01",
        ),
        (
            """-drive 'file=json:{"driver":"qcow2",,"file":{"driver":"file",,
                "filename":"/vm/web01.qcow2"}}'""",
            "web01",
        ),
        ("""-hda 'json:{"driver":"nbd","export":"web01","host":"st"}'""", "web01"),
        (
            """-blockdev '{"driver":"iscsi","target":"iqn.x:web01","lun":1,"node-name":"d"}'""",
            "web01-lun-1",
        ),
        ("-blockdev '{nonsense' -hda web01.img", "web01"),
        # which of several
        ("-cdrom /iso/debian-12.5.0.iso -hda /vm/web01.img", "web01"),
        ("-drive file=/iso/debian.iso,media=cdrom -drive file=/vm/web01.img", "web01"),
        ("-drive file=/iso/seed.iso,if=virtio -drive file=/vm/web01.img", "web01"),
        ("-drive file=/vm/base.img,readonly=on -drive file=/vm/web01.img", "web01"),
        ("-drive file=/vm/base.img,read-only=on -hda /vm/web01.img", "web01"),
        ("-hda /vm/web01.img -drive file=/vm/data01.img", "web01"),
        ("-drive file=/vm/web01.img -hda /vm/data01.img", "web01"),
        ("-fda /vm/floppy.img -hda /vm/web01.img", "web01"),
        (f"-drive if=pflash,file={OVMF},readonly=on -drive if=pflash,file=vars.fd", None),
        (f"-pflash {OVMF} -hda /vm/web01.img", "web01"),
        (f"-bios {OVMF}", None),
        (
            (
                f"-blockdev driver=file,filename={OVMF},node-name=code,read-only=on "
                "-blockdev driver=file,filename=/vm/vars01.fd,node-name=varsfile "
                "-blockdev driver=raw,file=varsfile,node-name=vars "
                "-machine q35,pflash0=code,pflash1=vars "
                "-blockdev driver=file,filename=/vm/web01.img,node-name=d"
            ),
            "web01",
        ),
        (
            (
                "-blockdev driver=file,filename=/iso/cd.img,node-name=s "
                "-blockdev driver=raw,file=s,node-name=cd -device ide-cd,drive=cd "
                "-blockdev driver=file,filename=/vm/web01.img,node-name=d"
            ),
            "web01",
        ),
        (
            """-blockdev '{"driver":"file","filename":"/iso/cd.img","node-name":"s"}'
               -blockdev '{"driver":"raw","file":"s","node-name":"cd","read-only":true}'
               -device '{"driver":"scsi-cd","drive":"cd"}'
               -blockdev '{"driver":"file","filename":"/vm/web01.img","node-name":"d"}'""",
            "web01",
        ),
        # no disk
        ("-cdrom /iso/debian-12.5.0.iso", "debian-12.5.0"),
        ("-drive file=/dev/sr0,if=ide -kernel k", "sr0"),
        ("-kernel /boot/vmlinuz-6.1 -append root=/dev/vda", "vmlinuz-6.1"),
        ("-virtfs local,path=/srv/web01,mount_tag=root -kernel /boot/vmlinuz", "web01"),
        ("-fsdev local,id=f,path=/srv/web01", "web01"),
        ("-name process=web01", "web01"),
        ("-pidfile /run/web01.pid", "web01"),
        (
            "-uuid 1b4e28ba-2fa1-11d2-883f-0016d3cca427",
            "guest-1b4e28ba-2fa1-11d2-883f-0016d3cca427",
        ),
        ("-smbios type=1,serial=web01", "guest-web01"),
        ("-device virtio-net-pci,mac=52:54:00:12:34:56", "guest-525400123456"),
        ("-nic user,mac=52:54:00:12:34:56", "guest-525400123456"),
        ("-net nic,macaddr=52:54:00:12:34:56 -net user", "guest-525400123456"),
        # files that are all called the same
        ("-hda /vm/web01/disk.qcow2", "web01-disk"),
        ("-drive file=/vm/web01/root0.img", "web01-root0"),
        ("-drive file=/dev/web01/root", "web01-root"),
        ("-kernel /vm/web01/vmlinuz", "web01-vmlinuz"),
        ("-hda /var/lib/libvirt/images/disk.qcow2", "disk"),
        ("-hda disk.qcow2", "disk"),
        # a name is a name
        ("-name '{web}' -hda /vm/a.img", "{web}"),
        ("-name 'Windows 10' -hda /vm/a.img", "Windows 10"),
    ],
)
def test_the_name(line: str, called: str | None) -> None:
    assert name(line) == called


def test_disks_of_a_configuration_file_come_first() -> None:
    config = '[drive "a"]\n  file = "/vm/web01.qcow2"\n  if = "virtio"\n'
    assert name("-readconfig x -hda /vm/data.img", config) == "web01"


@given(st.text(max_size=60) | st.text(alphabet='rbd:njsonp/{}\\@,.=?#"', max_size=40))
def test_any_file_is_read(text: str) -> None:
    assert isinstance(name_of_file(text), str)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["driver", "file", "server", "children", "image"]), inner)
    ),
)


@given(JSON)
def test_any_tree_is_read(tree: object) -> None:
    assert isinstance(name_of_node(tree), str)
    assert read_json(json.dumps(tree)) == tree


@given(st.text(max_size=40) | st.just("[" * 100_000) | st.just('{"a":' * 50_000))
def test_what_is_no_json_is_nothing(text: str) -> None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        assert read_json(text) is None
    else:
        assert repr(read_json(text)) == repr(found)


@given(st.lists(st.text(alphabet='filename.=,rbd:0{}"', max_size=30), max_size=3))
def test_any_line_is_read(values: list[str]) -> None:
    words = [word for value in values for word in ("-blockdev", value, "-drive", value)]
    guest_name(Line(words))
