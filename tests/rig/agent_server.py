"""A process that has the agent's code loaded, and forks agents: 10 ms each instead of a second.

    with agent_server() as server:
        agent = server.start(run, root, environ, "KSM, after the first write")
        while server.ended(agent) is None:
            ...

Theory of operation:
    `python -m tests.rig.agent_server` takes a line of JSON for each agent on its stdin, and answers
    a line. Each agent is a process of its own, which runs the program from its first line, and ends
    with the server, however that ends (prctl(2): PR_SET_PDEATHSIG).
"""

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import qmpmem.cli.app  # noqa: F401 - loaded once for all
from qmpmem import cli
from qmpmem.cli import agent_run
from qmpmem.records import replace
from qmpmem.wire.kernel import ksm
from tests.rig import ksmmodel
from tests.rig.crashpoints import POINTS, arm

PR_SET_PDEATHSIG: Final = 1


class AgentServer:
    """Has agents started, and waits for them."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def start(
        self,
        run: Path,
        root: Path | None,
        environ: Mapping[str, str],
        point: str | None = None,
        ticks: Path | None = None,
    ) -> int:
        """Start an agent; gives its pid. What it says is in `run`/.err.

        Args:
            run: its run directory.
            root: what it takes for the host's root, with ordinary files for KSM's; None: the host.
            environ: added to its environment.
            point: where it dies, of `crashpoints.POINTS`.
            ticks: a file that takes its rounds, in JSON.
        """
        place = None if root is None else str(root)
        words = {"run": str(run), "root": place, "environ": dict(environ), "point": point}
        return int(self._ask({**words, "ticks": None if ticks is None else str(ticks)}))

    def ended(self, pid: int) -> int | None:
        """Give an agent's exit code, or less than 0 for a signal; None: it lives."""
        status = self._ask({"pid": pid})
        return None if status is None else int(status)

    def _ask(self, request: Mapping[str, object]) -> Any:  # noqa: ANN401 - as JSON has it
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


@contextmanager
def agent_server() -> Generator[AgentServer]:
    """Have a agent_server; it and all its agents are gone at the end."""
    words = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.rig.agent_server"]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield AgentServer(process)


def main() -> None:
    ours: dict[int, int | None] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "run" in request:
            pid = os.fork()
            if not pid:
                _become(**request)
            ours[pid] = None
            answer: int | None = pid
        else:
            answer = _reap(ours, request["pid"])
        print(json.dumps(answer), flush=True)
    for pid, status in ours.items():
        if status is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _reap(ours: dict[int, int | None], pid: int) -> int | None:
    if ours[pid] is None:
        done, status = os.waitpid(pid, os.WNOHANG)
        ours[pid] = os.waitstatus_to_exitcode(status) if done else None
    return ours[pid]


def _become(
    *, run: str, root: str | None, environ: Mapping[str, str], point: str | None, ticks: str | None
) -> None:
    """Become an agent."""
    server = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)
    null = os.open(os.devnull, os.O_RDONLY)
    words = os.open(f"{run}/.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    data = words if ticks is None else os.open(ticks, os.O_WRONLY)
    for here, there in ((null, 0), (data, 1), (words, 2)):
        os.dup2(here, there)
    os.environ.update({**environ, "QMPMEM_RUN_DIR": run})
    sys.argv = ["qmpmem", "agent", *(() if ticks is None else ("--json",))]
    if root is not None:
        _look_elsewhere(Path(root))
    signal.signal(signal.SIGUSR1, lambda *_: _count(Path(run)))
    if point is not None:
        arm(POINTS[point])
    cli.main()  # loads nothing any more: this module has
    os._exit(1)  # not reached


def _count(run: Path) -> None:
    """Write down how many tasks there are, which no other process sees."""
    beside = run / ".count"
    beside.write_text(f"{len(asyncio.all_tasks())}\n")
    beside.replace(run / ".tasks")


def _look_elsewhere(root: Path) -> None:
    """Have the agent take a directory for the host's root, and ordinary files for KSM's."""
    place = agent_run._place
    ksm.write = ksmmodel.store
    agent_run._place = lambda environ: replace(place(environ), root=root)


if __name__ == "__main__":
    main()
