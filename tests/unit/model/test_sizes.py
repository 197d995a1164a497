"""What a guest has of the memory that it was given, by what it reports."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.errors import ConfigError
from qmpmem.model import bounds
from qmpmem.model.sizes import Sizes, with_report
from qmpmem.units import MIB, PAGE, Bytes

G = 1024


def sizes(boot: int, **kinds: int) -> Sizes:
    return Sizes(
        boot=Bytes(boot * MIB), **{kind: Bytes(size * MIB) for kind, size in kinds.items()}
    )


@pytest.mark.parametrize(
    ("given", "total", "offline"),
    [
        (sizes(256), 154, None),  # nothing is plugged, so nothing is asked
        (sizes(256, dimms=128), 154, 128),  # measured: Linux 6.1, not online
        (sizes(256, dimms=128), 281, 0),  # measured: online
        (sizes(256, movable=256), 154, 256),
        (sizes(256, movable=256), 282, 128),
        (sizes(256, movable=256), 410, 0),  # measured
        (sizes(4 * G, dimms=G), 3700, G),  # with a large crash kernel
        (sizes(4 * G, dimms=G), 4804, 0),
        (sizes(512, storage=512), 450, 512),  # a disk
        (sizes(512, storage=512), 950, 0),  # RAM (dax, kmem)
        (sizes(G, storage=10 * G), 960, 10 * G),
        (sizes(512, storage=512, dimms=128), 576, 512),
        (sizes(64 * G, dimms=4 * G), 63000, 2688),  # the rest might be the kernel's
        (sizes(64 * G, dimms=4 * G), 67000, 0),
        (sizes(256, dimms=128), 1000, 0),  # more than there is: `sanitise` judges that
    ],
)
def test_memory_that_is_not_online_is_seen_in_the_total(
    given: Sizes, total: int, offline: int | None
) -> None:
    found = with_report(given, Bytes(total * MIB), counted=given.ballooned, deflates=True)
    assert found.offline == (None if offline is None else offline * MIB)


def test_without_deflate_on_oom_the_balloon_is_missing_in_the_total_and_is_added() -> None:
    given = sizes(512, dimms=128)
    half = Bytes(384 * MIB)
    total = Bytes(330 * MIB)  # all 640 less 256 in the balloon, less the kernel's
    assert with_report(given, total, counted=half, deflates=False).offline == 0
    assert with_report(given, total, counted=half, deflates=True).offline == 128 * MIB


def test_without_a_report_a_guest_has_what_it_was_given_but_no_disk() -> None:
    given = sizes(256, dimms=128, movable=64, storage=512)
    assert with_report(given, None, counted=None, deflates=True) == given
    assert given.maximum == (256 + 128 + 64) * MIB
    assert given.ballooned == (256 + 128) * MIB
    assert given.beyond == 64 * MIB


def test_a_report_that_comes_later_replaces_the_one_before() -> None:
    given = sizes(256, dimms=128)
    off = with_report(given, Bytes(154 * MIB), counted=given.ballooned, deflates=True)
    on = with_report(off, Bytes(281 * MIB), counted=given.ballooned, deflates=True)
    assert (off.maximum, on.maximum) == (256 * MIB, 384 * MIB)


KINDS = st.integers(0, 1 << 14)


@given(KINDS, KINDS, KINDS, KINDS, st.none() | st.integers(1, 1 << 16))
def test_laws(boot: int, dimms: int, movable: int, storage: int, total: int | None) -> None:
    given = sizes(boot + 1, dimms=dimms, movable=movable, storage=storage)
    known = None if total is None else Bytes(total * MIB)
    found = with_report(given, known, counted=given.ballooned, deflates=True)
    assert given.boot <= found.maximum <= found.most
    assert found.seen(found.ballooned) == max(PAGE, found.maximum)
    assert PAGE <= found.told(Bytes(0)) <= found.told(found.maximum) == found.ballooned
    target = Bytes(found.beyond + PAGE)
    if target <= found.maximum and found.shift >= 0:
        assert found.seen(found.told(target)) == target


class TestFloor:
    def test_what_no_balloon_takes_leaves_the_rest_a_floor_of_its_own(self) -> None:
        assert bounds.floor(Bytes(512 * MIB), Bytes(256 * MIB)) == (256 + 128) * MIB
        assert bounds.floor(Bytes(512 * MIB)) == 187904000  # 35 %

    @pytest.mark.parametrize("size", [200, 256])
    def test_force_does_not_go_where_no_balloon_goes(self, size: int) -> None:
        with pytest.raises(ConfigError, match="which no balloon takes"):
            bounds.check_target(
                Bytes(size * MIB),
                guest="g",
                maximum=Bytes(512 * MIB),
                beyond=Bytes(256 * MIB),
                force=True,
            )

    def test_force_goes_below_the_floor(self) -> None:
        target, maximum, beyond = Bytes(300 * MIB), Bytes(512 * MIB), Bytes(256 * MIB)
        bounds.check_target(target, guest="g", maximum=maximum, beyond=beyond, force=True)
        with pytest.raises(ConfigError, match="floor 384 MiB"):
            bounds.check_target(target, guest="g", maximum=maximum, beyond=beyond)
