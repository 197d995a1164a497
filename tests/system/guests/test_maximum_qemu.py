"""What an empty balloon leaves a guest with, where memory of several kinds is plugged."""

from collections.abc import Sequence

import pytest

from qmpmem.guests import inventory
from qmpmem.guests.overview import overview
from qmpmem.units import MIB
from tests.rig.qemu import BALLOON, paused, short_directory

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]

ROOM = ("-m", "256M,slots=3,maxmem=1G")
BACKEND = ("-object", "memory-backend-ram,id=m1,size=128M")
DIMM = (*ROOM, *BACKEND, "-device", "pc-dimm,memdev=m1")
NVDIMM = (*ROOM, "-machine", "pc,nvdimm=on", *BACKEND, "-device", "nvdimm,memdev=m1")
VIRTIO_MEM = (*ROOM, *BACKEND, "-device", "virtio-mem-pci,memdev=m1,requested-size=128M")
MIXED = (
    *NVDIMM,
    *("-object", "memory-backend-ram,id=m2,size=64M", "-device", "pc-dimm,memdev=m2"),
)


@pytest.mark.parametrize(
    ("words", "expected"),
    [(DIMM, 384), (NVDIMM, 256), (VIRTIO_MEM, 256), (MIXED, 320)],
    ids=["dimm", "nvdimm", "virtio-mem", "mixed"],
)
def test_the_maximum_is_what_a_balloon_can_take(words: Sequence[str], expected: int) -> None:
    with short_directory() as run, paused(run, "g1", extra=(*words, *BALLOON)):
        (seen,) = overview(inventory.take(run).guests)
    assert seen.problem is None
    assert (seen.maximum, seen.actual) == (expected * MIB, expected * MIB)
