"""What the launcher keeps for the next start, where something else stands in its place."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import odd
from tests.rig.launcher import PLAYED, Emulator
from tests.rig.qemu import short_directory

GUEST = ("-name", "web1", "-m", "1G")


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with short_directory() as directory:
        yield Emulator(directory)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", odd.EVERY)
def test_whatever_stands_in_place_of_what_is_kept_the_guest_starts(
    emulator: Emulator, make: odd.Make
) -> None:
    assert emulator.launch(*GUEST).code == PLAYED
    proof = emulator.run / ".python/proof"
    assert proof.is_file()
    answers = sorted(emulator.run.glob(".emulator-*"))
    for path in (*answers, proof, proof.parent):
        _remove(path)
        make(path)
        ran = emulator.launch(*GUEST)
        assert ran.code == PLAYED
        assert len(ran.err.splitlines()) <= 1
        if make is odd.link:
            assert odd.victim(path).read_bytes() == odd.WORDS
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
