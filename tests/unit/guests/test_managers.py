"""Managers of QEMUs, known by what they always write, and what is no manager's."""

import shlex

import pytest

from qmpmem.guests import managers

LIMA = "/home/u/.lima/default/qmp.sock"


@pytest.mark.parametrize(
    ("line", "manager"),
    [
        ("-chardev socket,id=charmonitor,fd=30,server=on", "libvirt"),
        ('-object \'{"id":"k","file":"/var/lib/libvirt/qemu/domain-3-a/key.aes"}\'', "libvirt"),
        ("-chardev socket,id=m,path=/home/u/.config/libvirt/qemu/lib/domain-1-b/m.sock", "libvirt"),
        ("-chardev socket,id=qmp,path=/run/qemu-server/100.qmp,server=on", "Proxmox VE"),
        ("-pidfile /var/run/qemu-server/100.pid -daemonize", "Proxmox VE"),
        ("-qmp unix:/run/vc/vm/0a1b/qmp.sock,server=on", "Kata Containers"),
        ("-pidfile /run/kata-containers/x/pid", "Kata Containers"),
        ("-qmp unix:/var/run/ganeti/kvm-hypervisor/ctrl/a.qmp,server", "Ganeti"),
        ("-readconfig /run/incus/default_a/qemu.conf", "Incus"),
        ("-D /var/log/incus/a/qemu.log", "Incus"),
        ("-readconfig /var/snap/lxd/common/lxd/logs/a/qemu.conf", "LXD"),
        ("-pidfile /var/log/lxd/a/qemu.pid", "LXD"),
        ("-cdrom /var/snap/multipass/common/data/multipassd/vault/a.iso", "Multipass"),
        ("-xen-domid 3", "Xen"),
        ("-drive file=/var/lib/libvirt/images/a.qcow2", None),
        ("-drive file=/home/u/.lima/default/diffdisk", None),
        ("-drive file=/var/lib/incus/disks/a.img", None),
        ("-monitor unix:ubuntu/ubuntu-monitor.socket,server -pidfile ubuntu/ubuntu.pid", None),
        ("-name lima -m 512", None),
    ],
)
def test_by_arguments(line: str, manager: str | None) -> None:
    assert managers.by_arguments(shlex.split(line)) == manager


@pytest.mark.parametrize(
    ("path", "manager"),
    [
        (LIMA, "Lima"),
        ("/home/u/.colima/_lima/colima/qmp.sock", "Lima"),
        ("/run/user/1000/podman/qmp_podman-machine-default.sock", "Podman machine"),
        ("/run/qemu-server/100.qmp", "Proxmox VE"),
        ("/var/lib/libvirt/qemu/nonsense.sock", "libvirt"),
        ("/run/user/1000/qmpmem/web1/qmp.sock", None),
        ("/home/u/lima/web1/qmp.sock", None),
        ("@lima", None),
    ],
)
def test_by_sockets(path: str, manager: str | None) -> None:
    assert managers.by_sockets(["/tmp/other", path]) == manager


@pytest.mark.parametrize(
    ("program", "manager"),
    [
        ("/usr/bin/systemd-vmspawn", "systemd-vmspawn"),
        ("/nix/store/x-lima/bin/.limactl-wrapped", "Lima"),
        ("/snap/multipass/1/bin/multipassd", "Multipass"),
        ("/opt/kata/bin/containerd-shim-kata-v2", "Kata Containers"),
        ("/usr/bin/bash", None),
        ("/usr/bin/not-incusd", None),
        (None, None),
    ],
)
def test_by_parent(program: str | None, manager: str | None) -> None:
    assert managers.by_parent(program) == manager


def test_each_has_an_advice_and_a_way_to_be_known() -> None:
    for each in managers.MANAGERS:
        assert managers.find(each.name) == each
        assert each.advice
        assert each.words or each.sockets or each.parents
