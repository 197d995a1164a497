"""Letting go of guests that are gone, while launchers may be taking their places."""

import os
from pathlib import Path

import pytest

from qmpmem.errors import ConfigError
from qmpmem.guests import rundir
from qmpmem.guests.adopt import forget
from qmpmem.guests.rundir import GuestRecord
from tests.rig.install_roots import NO_PROCESS


@pytest.fixture
def gone(tmp_path: Path) -> Path:
    """The directory of a guest whose process has ended."""
    record = GuestRecord(
        version=1,
        id="a",
        name="a",
        pid=NO_PROCESS,
        start_time=1,
        socket=str(tmp_path / "a" / "qmp.sock"),
        uid=os.getuid(),
        created=0.0,
    )
    (tmp_path / "a").mkdir()
    rundir.write_record(tmp_path, record)
    return tmp_path / "a"


def test_a_guest_that_is_gone_is_forgotten(gone: Path) -> None:
    assert not forget(gone.parent, "a").alive
    assert not gone.exists()


def test_nothing_is_forgotten_while_a_launcher_clears_away(gone: Path) -> None:
    with rundir.removing(gone.parent), pytest.raises(ConfigError, match="could not be removed"):
        forget(gone.parent, "a")
    assert (gone / "record.json").exists()
