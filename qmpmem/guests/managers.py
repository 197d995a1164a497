"""Which program manages a QEMU: libvirt, Proxmox VE and others that use its monitors themselves.

Rules of this file:
    Pure. A user chose all that is judged here (arguments, paths, the parent's program). So it may
    keep us away from a guest, and never gives a right to one.

Theory of operation:
    A manager keeps what belongs to a running guest in directories of its own, whose paths are in
    the guest's arguments or among its sockets; or it is the guest's parent. Directories that hold
    disk images as well are looked for among sockets only: any program may use an image.
    A manager may leave its monitor free between two uses, so a free monitor proves nothing.
"""

import os
import re
from collections.abc import Iterable, Sequence
from typing import Final

from qmpmem.records import Record


class Manager(Record, frozen=True):
    """A program that starts QEMUs and goes on using their monitors."""

    name: str
    advice: str
    """What to use instead of us."""
    words: str | None = None
    """A regular expression that only its guests' arguments and sockets match."""
    sockets: str | None = None
    """A regular expression that only its guests' sockets match."""
    parents: tuple[str, ...] = ()
    """The names of its program, where that is a guest's parent."""


MANAGERS: Final = (
    # The chardev: libvirt, src/qemu/qemu_command.c. The directory: the system's and a user's.
    Manager(
        name="libvirt",
        advice="use virsh",
        words=r"/libvirt/qemu/(?:lib/)?domain-|(?:^|,)id=charmonitor(?:,|$)",
        sockets=r"/libvirt/qemu/",
    ),
    # qemu-server: PVE/QemuServer.pm and PVE/QemuServer/Helpers.pm
    Manager(
        name="Proxmox VE",
        advice="use qm",
        words=r"/run/qemu-server/\d+\.|/run/qmeventd\.sock",
        parents=("qm", "pvedaemon"),
    ),
    # kata-containers: src/runtime/virtcontainers and runtime-rs; /run/vc is the older place
    Manager(
        name="Kata Containers",
        advice="use its configuration",
        words=r"/run/(?:vc/(?:vm|sbs|firecracker)|kata(?:-containers)?)/|"
        r"/(?:share|opt)/kata(?:-containers)?/",
        parents=("containerd-shim-kata-v2", "kata-runtime"),
    ),
    # lima: pkg/driver/qemu; the instance's directory is below LIMA_HOME
    Manager(
        name="Lima",
        advice="use limactl",
        sockets=r"/(?:\.lima|_lima|rancher-desktop/lima)/[^/]+/(?:qmp|serial\w*)\.sock$",
        parents=("limactl", "lima-driver-qemu"),
    ),
    Manager(
        name="Podman machine",
        advice="use podman machine",
        sockets=r"/podman/qmp_|/podman/machine/",
    ),
    # ganeti: lib/hypervisor/hv_kvm, _CTRL_DIR
    Manager(
        name="Ganeti",
        advice="use gnt-instance",
        words=r"/ganeti/kvm-hypervisor/",
    ),
    # incus and lxd: internal/server/instance/drivers/driver_qemu.go, LogPath and RunPath
    Manager(
        name="Incus",
        advice="use incus",
        words=r"/(?:run|log)/incus/",
        parents=("incusd",),
    ),
    Manager(
        name="LXD",
        advice="use lxc",
        words=r"/(?:run|log)/lxd/|/lxd/common/lxd/(?:logs|run)/|/run/snap\.lxd/",
        parents=("lxd",),
    ),
    Manager(
        name="Multipass",
        advice="use multipass",
        words=r"/multipassd/",
        parents=("multipassd",),
    ),
    Manager(
        name="systemd-vmspawn",
        advice="use machinectl",
        words=r"/systemd/vmspawn[./]",
        parents=("systemd-vmspawn",),
    ),
    # As libxl writes them (xen: tools/libs/light/libxl_dm.c).
    Manager(
        name="Xen",
        advice="use xl",
        words=r"/run/xen/|^-xen-domid$|(?:^|,)id=libxl-cmd(?:,|$)",
    ),
    Manager(
        name="minikube",
        advice="use minikube",
        sockets=r"/\.minikube/machines/",
    ),
    Manager(name="GNS3", advice="use GNS3", parents=("gns3server",)),
    Manager(name="Nomad", advice="use nomad", parents=("nomad",)),
)


def find(name: str) -> Manager:
    """Find a manager by its name.

    Raises:
        KeyError: there is none of that name.
    """
    return {each.name: each for each in MANAGERS}[name]


def by_arguments(words: Sequence[str]) -> str | None:
    """Return the name of the manager that wrote these arguments; None where no manager did."""
    return _first(each.name for each in MANAGERS if each.words and _any(each.words, words))


def by_sockets(paths: Sequence[str]) -> str | None:
    """Return the name of the manager in whose directories these sockets are."""
    return _first(
        each.name
        for each in MANAGERS
        for pattern in (each.words, each.sockets)
        if pattern and _any(pattern, paths)
    )


def by_parent(program: str | None) -> str | None:
    """Return the name of the manager that a parent's program is.

    Args:
        program: its file, or its name; a wrapped one is called ``.NAME-wrapped``.
    """
    name = os.path.basename(program or "")  # noqa: PTH119 - text
    name = name.removeprefix(".").removesuffix("-wrapped")
    return _first(each.name for each in MANAGERS if name in each.parents)


def _any(pattern: str, texts: Sequence[str]) -> bool:
    search = re.compile(pattern).search
    return any(search(text) is not None for text in texts)


def _first(names: Iterable[str]) -> str | None:
    return next(iter(names), None)
