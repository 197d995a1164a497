"""The ordinary user's qmpmem runs wherever the checkout is."""

import subprocess

import pytest

from tests.rig import users
from tests.rig.command import PROGRAM
from tests.rig.qemu import short_directory
from tests.rig.users import AS_ORDINARY, needs_root


@pytest.mark.timeout(120)  # it starts Python several times, with files that nothing has read yet
@needs_root("cannot become another user")
def test_where_the_checkout_cannot_be_read_a_copy_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with short_directory() as home, short_directory() as directory:
        home.chmod(0o700)  # as /root
        hidden = home / "qmpmem"
        hidden.symlink_to(PROGRAM)
        monkeypatch.setattr("tests.rig.users.PROGRAM", hidden)
        program = users.shared_program(directory)
        assert program.is_relative_to(directory)
        words = [*AS_ORDINARY, str(program), "launcher", "status", "--root", str(home)]
        ran = subprocess.run(words, capture_output=True, text=True, cwd="/", check=False)
        assert "launchers are missing" not in ran.stderr
        assert "Traceback" not in ran.stderr
        assert ran.stdout or ran.stderr
