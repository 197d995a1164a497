"""Command lines as people write them: with the launcher each does what it does without.

Each is started twice, with a real QEMU: through the launcher it starts exactly if it starts
without, with the same devices but for ours; where it fails, it fails with the same words.
"""

from collections.abc import Iterator
from typing import Final

import pytest

from tests.rig import lines
from tests.rig.lines import Example
from tests.rig.pairs import Failed, Ground
from tests.rig.qemu import short_directory

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]

EXAMPLES: Final = lines.read()


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with short_directory() as directory:
        lines.furnish(directory / "here")
        yield Ground(directory / "here", directory / "run")


@pytest.mark.parametrize("example", [pytest.param(one, id=one.name) for one in EXAMPLES])
def test_a_command_line(ground: Ground, example: Example) -> None:
    words = example.words()
    bare, launched = ground.bare(*words), ground.launched(*words)
    if isinstance(bare, Failed) or isinstance(launched, Failed):
        assert launched == bare
    else:
        assert (launched.tree, launched.pci) == (bare.tree, bare.pci)
        assert launched.balloon != example.bare


def test_they_are_many_and_told_apart() -> None:
    assert len({one.name for one in EXAMPLES}) == len(EXAMPLES) >= 150
