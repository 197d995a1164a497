"""The same command line with the launcher and without, and what came of it.

Theory of operation:
    A guest without the launcher gets a monitor by a configuration file, which changes nothing else
    about it. It is called by the launcher's name, which decides about the accelerator and begins
    QEMU's messages.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from launchers.kvm_options import Line
from launchers.kvm_plan import why_unchanged
from tests.rig.launcher import SHIM, Monitor
from tests.rig.patience import patient
from tests.rig.qemu import EMULATOR, listens

OWN: Final = """[chardev "own"]
  backend = "socket"
  path = "{path}"
  server = "on"
  wait = "off"
[mon "own"]
  chardev = "own"
  mode = "control"
"""
"""A monitor that changes nothing else, for a guest without the launcher."""
OURS: Final = re.compile(r'dev: virtio-balloon\S*, id "qmpmem\d"')
GENERATED: Final = re.compile(r"#(block|net)\d+")
"""Names that QEMU draws by lot (QEMU: util/id.c)."""
PATIENCE: Final = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A guest that runs, seen through its monitor."""

    tree: str
    """`info qtree` without our balloon."""
    pci: tuple[str, ...]
    """`info pci` by device, without our balloon."""
    balloon: bool
    """Whether it has a balloon of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A guest that did not start."""

    code: int
    said: str
    """What QEMU said, without what the launcher said."""


Outcome = Started | Failed


@dataclass(frozen=True, slots=True)
class Ground:
    """Where command lines are tried."""

    directory: Path
    """The working directory: the files that the command lines name."""
    run: Path
    """The launcher's run directory."""
    emulator: str = f"/usr/bin/{EMULATOR}"

    def bare(self, *words: str) -> Outcome:
        """Try a command line without the launcher."""
        with self._own_monitor() as (path, config):
            command = [str(SHIM), *words, "-readconfig", str(config)]
            return self._try(command, path, self.emulator, os.environ)

    def launched(self, *words: str, **settings: str) -> Outcome:
        """Try a command line with the launcher; settings without QMPMEM_."""
        if why_unchanged(Line(words)) == "":
            with self._own_monitor() as (path, config):
                command = [str(SHIM), *words, "-readconfig", str(config)]
                return self._try(command, path, str(SHIM), self._environ(settings))
        return self._try([str(SHIM), *words], None, str(SHIM), self._environ(settings))

    def _environ(self, settings: Mapping[str, str]) -> dict[str, str]:
        fixed = {"REAL": self.emulator, "RUN_DIR": str(self.run), "DEFAULTS": "/proc/nonexistent"}
        chosen = {f"QMPMEM_{key.upper()}": value for key, value in {**fixed, **settings}.items()}
        return os.environ | chosen

    @contextmanager
    def _own_monitor(self) -> Iterator[tuple[Path, Path]]:
        path, config = self.run.parent / "own.sock", self.run.parent / "own.conf"
        config.write_text(OWN.format(path=path))
        yield path, config
        path.unlink(missing_ok=True)

    def _try(
        self, command: Sequence[str], path: Path | None, program: str, environ: Mapping[str, str]
    ) -> Outcome:
        for old in self.run.glob("*/"):
            shutil.rmtree(old)
        output = self.run.parent / "output"
        with output.open("wb") as file:
            child = subprocess.Popen(
                command,
                executable=program,
                cwd=self.directory,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        deadline = time.monotonic() + patient(PATIENCE)
        try:
            while time.monotonic() < deadline:
                paths = [path] if path else [*self.run.glob("*/qmp.sock")]
                seen = _look(paths[0]) if paths and listens(paths[0]) else None
                if seen is not None:
                    return seen
                if child.poll() is not None and (child.returncode or "-daemonize" not in command):
                    said = output.read_text(errors="replace").splitlines()
                    kept = [line for line in said if not line.startswith("qmpmem: ")]
                    return Failed(code=child.returncode, said="\n".join(kept))
                time.sleep(0.002)
            raise AssertionError(f"neither started nor ended: {output.read_text()}")
        finally:
            child.kill()
            child.wait()


def _look(path: Path) -> Started | None:
    """Look at a guest and end it; None: it was not there yet, or ended."""
    try:
        with closing(Monitor(path)) as monitor:
            monitor.greet()
            tree, pci = monitor.say("info qtree"), monitor.say("info pci")
            monitor.quit()
    except (OSError, ValueError, AssertionError):
        return None
    return Started(
        tree=GENERATED.sub("#", prune(tree)),
        pci=tuple(part for part in pci.split("  Bus ") if 'id "qmpmem' not in part),
        balloon=OURS.search(tree) is not None,
    )


def prune(tree: str) -> str:
    """Take our balloon out of `info qtree`."""
    kept: list[str] = []
    depth = None
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        if depth is not None and indent > depth:
            continue
        depth = indent if OURS.search(line) else None
        if depth is None:
            kept.append(line)
    return "\n".join(kept)
