"""`qmpmem history`, `why --at` and `replay`, as a user runs them, without an agent."""

import json
import subprocess
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from qmpmem.journal.store import Store
from qmpmem.records import replace
from qmpmem.units import MIB, Bytes
from tests.rig import laws
from tests.rig.command import Ran, called
from tests.rig.qemu import short_directory
from tests.rig.users import AS_ORDINARY, needs_root

AGO = 600.0


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of ten minutes ago, of a host on which something happens."""
    path = tmp_path_factory.mktemp("journal") / "j.db"
    seen = next(found for seed in range(200) if (found := _busy(seed)))
    start = time.time() - AGO
    with closing(Store(path, Bytes(64 * MIB))) as store:
        for each in seen:
            snapshot = replace(each.snapshot, wall=start + each.snapshot.time)
            store.add(replace(each.tick, snapshot=snapshot), each.world.config)
    return path


def _busy(seed: int) -> list[laws.Seen]:
    seen = list(laws.rounds(laws.world(seed)))
    return seen if sum(len(each.plan.balloons) for each in seen) > 30 else []


@pytest.fixture(scope="module")
def guest(journal: Path) -> str:
    ran = called("history", "nobody", "--journal", str(journal), run=journal.parent)
    return ran.err.partition("guests in it: ")[2].split(",")[0].strip()


def ask(journal: Path, *words: str) -> Ran:
    return called(*words, "--journal", str(journal), run=journal.parent)


def test_history_is_a_table_and_objects(journal: Path, guest: str) -> None:
    ran = ask(journal, "history", guest)
    assert ran.code == 0, ran.err
    assert ran.out.split()[:3] == ["FROM", "TO", "ROUNDS"]
    rows = [json.loads(line) for line in ask(journal, "history", guest, "--json").out.splitlines()]
    assert len(rows) == len(ran.out.splitlines()) - 1
    assert {row["guest"] for row in rows} == {guest}
    assert all(one["end"] <= two["begin"] for one, two in pairwise(rows))


def test_why_at_a_time_is_what_was_decided_then(journal: Path, guest: str) -> None:
    ran = ask(journal, "why", guest, "--at", "590s")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("at ")
    found = json.loads(ask(journal, "why", guest, "--at", "590s", "--json").out)
    assert abs(found["time"] - (time.time() - 590)) < 60
    assert found["guest"] == found["explanation"]["guest"] == guest


def test_replay_with_other_settings(journal: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('[[guest]]\nmatch = "*"\nmanaged = false\n')
    ran = ask(journal, "replay", "--config", str(other))
    assert ran.code == 0, ran.err
    assert "would differ" in ran.out
    found = json.loads(ask(journal, "replay", "--config", str(other), "--json").out)
    assert found["differs"] > 0
    assert all(each["now"]["shrinks"] == 0 for each in found["guests"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("history", "nobody"), 2, "nothing of it in the journal"),
        (("history", "g0", "--since", "soon"), 2, "expected 14:03"),
        (("why", "g0", "--at", "3d"), 2, "no round within 60 s"),
        (("replay", "--config", "EMPTY", "--since", "1s"), 2, "no round since"),
    ],
)
def test_what_cannot_be_told_is_one_line(
    journal: Path, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    empty = tmp_path / "empty.toml"
    empty.touch()
    ran = ask(journal, *(str(empty) if word == "EMPTY" else word for word in words))
    assert ran.code == code
    assert said in ran.err
    assert len(ran.err.strip().splitlines()) <= 2


def test_no_journal_and_a_damaged_one(tmp_path: Path) -> None:
    ran = called("history", "g0", "--journal", str(tmp_path / "none"), run=tmp_path)
    assert (ran.code, "no journal" in ran.err) == (2, True)
    (tmp_path / "j").write_bytes(b"x" * 9999)
    ran = called("history", "g0", "--journal", str(tmp_path / "j"), run=tmp_path)
    assert (ran.code, "not a database" in ran.err) == (4, True)


def test_the_configuration_says_where_it_is(journal: Path, tmp_path: Path, guest: str) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[journal]\npath = "{journal}"\n')
    ran = called("history", guest, run=tmp_path, environ={"QMPMEM_CONFIG": str(config)})
    assert ran.code == 0, ran.err


@needs_root("may not become another user")
def test_a_journal_of_another_user_is_named(shared_program: Path) -> None:
    with short_directory() as directory:
        (directory / "state").mkdir(mode=0o700)
        directory.chmod(0o755)
        path = directory / "state/journal.db"
        words = [*AS_ORDINARY, str(shared_program), "history", "g0", "--journal", str(path)]
        ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ran.returncode, f"journal {path}: Permission denied" in ran.stderr) == (4, True), ran
