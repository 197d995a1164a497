"""Whole commands timed by hyperfine, in turns.

Theory of operation:
    hyperfine runs one command after the other, so what else the machine does meanwhile would hit
    one of them alone. Several short rounds of all commands even that out; the median is taken over
    all rounds.
"""

import json
import os
import shlex
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

WARMUP: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How often each command runs."""

    rounds: int
    runs: int
    """In each round."""


def medians(
    commands: Sequence[Sequence[str]],
    effort: Effort,
    *,
    environ: Mapping[str, str] | None = None,
    prepare: Sequence[str] = (),
) -> list[float]:
    """Time commands side by side.

    Args:
        commands: words of each, run without a shell.
        effort: how often.
        environ: added to this process's environment.
        prepare: words of a command that runs before each run, untimed.

    Returns:
        The median of each command, in milliseconds.

    Raises:
        CalledProcessError: one of them failed.
    """
    rounds = [_round(commands, effort, environ, prepare) for _ in range(effort.rounds)]
    return [statistics.median(chain(*times)) * 1000 for times in zip(*rounds, strict=True)]


def environment(environ: Mapping[str, str] | None) -> dict[str, str]:
    """Make the environment that commands run in: this process's, less what is set for Python.

    Where Python may not write its caches (PYTHONDONTWRITEBYTECODE), a checkout's modules are
    compiled again at each start, and those of installed packages are not.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return kept | dict(environ or {})


def _round(
    commands: Sequence[Sequence[str]],
    effort: Effort,
    environ: Mapping[str, str] | None,
    prepare: Sequence[str],
) -> list[list[float]]:
    with tempfile.TemporaryDirectory(prefix="qm-", dir="/tmp") as directory:
        export = Path(directory, "times.json")
        words = ["hyperfine", "--shell=none", "--style=none"]
        words += [f"--warmup={WARMUP}", f"--runs={effort.runs}", f"--export-json={export}"]
        words += [f"--prepare={shlex.join(prepare)}"] if prepare else []
        subprocess.run(
            [*words, *map(shlex.join, commands)],
            env=environment(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
        return [result["times"] for result in json.loads(export.read_bytes())["results"]]
