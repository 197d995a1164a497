"""`python tests/bench scenarios`, run as a developer runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCENARIO = """
seconds = 40
[host]
memory = "2G"
[[guest]]
name = "a"
memory = "1G"
demand = [[0, "100M"], [20, "600M"]]
"""


def ran(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tests/bench", "scenarios", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_scenario_of_ones_own_is_played_by_three_chances(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(SCENARIO)
    done = ran("--file", str(path), "--policy", "static", "--json")
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(done.stdout)
    (found,) = document["scenarios"]
    assert found["name"] == "own"
    rows = [(row["policy"], row["devices"]) for row in found["rows"]]
    assert rows == [("ours", "launcher"), ("static", "launcher"), ("static", "stock")]
    assert document["holds"] is (done.returncode == 0)


def test_the_table_ends_with_how_often_ours_is_the_best(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(SCENARIO)
    done = ran("--file", str(path), "--policy", "static", "--seeds", "1")
    assert done.stdout.splitlines()[-1].startswith("best in ")
    assert done.stdout.startswith("SCENARIO")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nosuch",), "bench: no scenario nosuch; there are alike, "),
        (("--file", "/proc/no/such.toml"), "bench: /proc/no/such.toml"),
        (("--seeds", "0"), "at least 1"),
    ],
)
def test_what_cannot_be_played_is_said(words: tuple[str, ...], said: str) -> None:
    done = ran(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
