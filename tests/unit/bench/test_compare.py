"""What is said of the simulator beside real guests, and the rows that it is tried with."""

from dataclasses import replace

import pytest

from qmpmem.simulate.policy_table import RIVALS
from tests.bench import compare, squeeze
from tests.bench.compare import Pair
from tests.bench.jobs import Jobs
from tests.bench.stacks import STACKS

SIZE = squeeze.Size(
    guests=3,
    share=250,
    cache=300,
    settle=20.0,
    burst=250,
    late=20.0,
    jobs=Jobs(count=3, touches=100, reads=50, every=5.0, lasts=8.0),
)


def row(unmet: int) -> squeeze.Row:
    return squeeze.Row(
        burst=None, by_then=0, work=0, unmet=unmet, turns=0, kills=0, lost=0, swapped=0, hits=0
    )


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (((100, 149), (300, 300)), []),
        (((100, 151), (300, 300)), ["a: 100 MiB·s unmet, simulated 151"]),
        (((100, 140), (160, 130)), ["a and b are the other way round"]),
        (((100, 140), (140, 130)), []),  # what is so near is as good
    ],
)
def test_what_disagrees_is_said(figures: tuple[tuple[int, int], ...], said: list[str]) -> None:
    pairs = [
        Pair(key=key, real=row(real), simulated=row(simulated))
        for key, (real, simulated) in zip("ab", figures, strict=True)
    ]
    assert list(compare.breaches(pairs)) == said


def test_every_real_row_has_a_simulated_one() -> None:
    found = [(stack.key, compare.row_of(stack)) for stack in STACKS]
    assert {key: (row.name, row.devices) for key, row in found} == {
        "ours/launcher": ("ours", "launcher"),
        "minimum/launcher": ("at-minimum", "launcher"),
        "proxmox/launcher": ("proxmox", "launcher"),
        "mom/launcher": ("mom", "launcher"),
        "none/launcher": ("static", "launcher"),
        "proxmox/reporting": ("proxmox", "stock"),
        "mom/plain": ("mom", "stock"),
        "none/absent": ("static", "stock"),
    }


@pytest.mark.parametrize(
    ("name", "lost", "work"), [("static", True, False), ("at-minimum", False, True)]
)
def test_the_simulated_course_is_that_of_the_real_bench(
    *, name: str, lost: bool, work: bool
) -> None:
    found = compare.simulated(RIVALS[name], SIZE)
    assert found.burst is not None
    assert found.burst >= 2.5  # 250 MiB at 100 MiB/s
    assert bool(found.lost) is lost
    assert (found.work == 300) is work
    assert found.unmet > 300 * 0.75 / 2  # touching 100 MiB takes a second, to a quarter


def test_a_guest_that_was_lost_does_no_work_any_more() -> None:
    roomy = replace(SIZE, share=600)
    found = compare.simulated(RIVALS["static"], roomy)
    assert (found.lost, found.work) == (0, 300)
    assert compare.simulated(RIVALS["static"], replace(SIZE, share=180)).work < 300


@pytest.mark.parametrize(
    ("key", "unmet", "lost"),
    [("none/absent", 43992, 6), ("mom/plain", 49976, 3), ("minimum/launcher", 7497, 0)],
)
def test_the_simulator_is_near_to_what_was_measured(key: str, unmet: int, lost: int) -> None:
    """On two cores, with QEMU 7.2 and without KVM: MiB·s unmet, guests that the host ended."""
    stack = next(stack for stack in STACKS if stack.key == key)
    found = compare.simulated(compare.row_of(stack), squeeze.FULL)
    assert 1 / compare.NEAR < found.unmet / unmet < compare.NEAR
    assert abs(found.lost - lost) <= 1
