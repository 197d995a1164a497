"""ksmtuned, as the bench runs it beside the agent."""

import shutil
import subprocess
from pathlib import Path

import pytest

from qmpmem.wire import kernel
from tests.rig import ksmtuned


def test_ksmtuned_ends_with_all_that_it_started(tmp_path: Path) -> None:
    for name in (ksmtuned.SCRIPT, ksmtuned.CONTROL):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f'#!/bin/sh\nsleep 987 &\necho $! >"{tmp_path}/pid"\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / ksmtuned.CONTROL).write_text("#!/bin/sh\n")
    with ksmtuned.running(tmp_path):
        pid = int((tmp_path / "pid").read_text())
        assert Path(f"/proc/{pid}").exists()
    assert wire_ended(pid)


def wire_ended(pid: int) -> bool:
    """Return whether a process is gone, or dead and not reaped yet."""
    process = kernel.process(pid)
    return process is None or process.state == "Z"


def test_a_refused_fetch_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho nothing >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(shutil.which('true') or '').parent}")
    with pytest.raises(subprocess.CalledProcessError):
        ksmtuned.fetch(tmp_path / "store")
