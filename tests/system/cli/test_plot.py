"""`qmpmem plot` and `history --csv`, as a user runs them, without an agent."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from qmpmem.cli import plot
from qmpmem.errors import ConfigError
from qmpmem.journal.aggregate import Aggregate
from qmpmem.journal.store import Store
from qmpmem.model.config import Config
from qmpmem.units import MIB, Bytes
from tests.rig.command import Ran, called, on_terminal, qmpmem
from tests.rig.rounds import busy
from tests.rig.users import NOBODY, needs_root

AGO = 3 * 3600
EVERY = 15


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of the last three hours."""
    path = tmp_path_factory.mktemp("journal") / "j.db"
    start, aggregate, upto = time.time() - AGO, Aggregate(60), 0
    with closing(Store(path, Bytes(64 * MIB))) as store:
        for number in range(AGO // EVERY):
            tick = busy(number, wall=start + number * EVERY)
            written = store.add(tick, Config())
            minute = aggregate.add(tick)
            if minute is not None:
                store.keep(minute, upto, 31.0)
            upto = written
    return path


def ask(journal: Path, *words: str) -> Ran:
    return called("plot", *words, "--journal", str(journal), run=journal.parent)


@pytest.mark.parametrize("since", ["10m", "1h", "1d", "30d"])
@pytest.mark.parametrize("name", ["g1", "guest 1", "host"])
def test_a_plot_is_drawn_on_80_columns(journal: Path, name: str, since: str) -> None:
    ran = ask(journal, name, "--since", since)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0].startswith("Memory of ")
    assert max(len(line) for line in lines) <= 80
    assert "█" in ran.out
    assert "\x1b" not in ran.out


@pytest.mark.parametrize(
    "environ",
    [
        {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"LC_ALL": "", "LC_CTYPE": "", "LANG": "C"},
        {"LC_ALL": "", "LC_CTYPE": "", "LANG": "POSIX"},
    ],
)
def test_without_utf8_it_is_ascii(journal: Path, environ: dict[str, str]) -> None:
    words = ("plot", "g1", "--journal", str(journal))
    ran = qmpmem(*words, run=journal.parent, environ=environ)
    assert ran.code == 0, ran.err
    assert ran.out.isascii()
    assert "#" in ran.out
    assert "\\u" not in ran.out


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_on_a_terminal_it_is_as_wide_and_coloured(journal: Path, columns: int) -> None:
    words = ("plot", "g1", "--since", "2h", "--journal", str(journal))
    ran = on_terminal(*words, run=journal.parent, columns=columns)
    assert ran.code == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", ran.out)
    assert plain != ran.out
    assert columns - 2 <= max(len(line) for line in plain.splitlines()) <= columns


def test_into_a_file(journal: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.svg"
    ran = ask(journal, "g1", "--since", "2h", "--out", str(out))
    assert (ran.code, ran.out, ran.err) == (0, "", f"qmpmem: drew {out}\n")
    root = ET.fromstring(out.read_text())  # noqa: S314 - our own
    assert root.findtext("{http://www.w3.org/2000/svg}title") == "Memory of guest guest 1 (g1)"


@pytest.mark.skipif(shutil.which("rsvg-convert") is None, reason="missing: rsvg-convert")
def test_as_png(journal: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.PNG"
    ran = ask(journal, "host", "--out", str(out))
    assert ran.code == 0, ran.err
    assert out.read_bytes().startswith(b"\x89PNG")


def test_without_the_converter_a_png_is_refused_in_a_line(journal: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    words = ("plot", "g1", "--journal", str(journal), "--out", str(out))
    ran = qmpmem(*words, run=journal.parent, environ={"PATH": str(tmp_path)})
    assert ran.code == 2
    assert ran.err == (
        f"qmpmem: {out}: a PNG needs rsvg-convert, which is not installed; apt install"
        f" librsvg2-bin, or name it {tmp_path / 'x.svg'}\n"
    )
    assert not out.exists()


def test_a_converter_that_fails_is_named_in_a_line(journal: Path, tmp_path: Path) -> None:
    program = tmp_path / "rsvg-convert"
    program.write_text("#!/bin/sh\necho no fonts here >&2\nexit 3\n")
    program.chmod(0o755)
    out = tmp_path / "x.png"
    words = ("plot", "g1", "--journal", str(journal), "--out", str(out))
    path = f"{tmp_path}:{os.environ['PATH']}"
    ran = qmpmem(*words, run=journal.parent, environ={"PATH": path})
    assert (ran.code, ran.err) == (2, f"qmpmem: {out}: rsvg-convert: no fonts here\n")
    assert not out.exists()


def test_json_is_the_series(journal: Path) -> None:
    ran = ask(journal, "g1", "--json", "--since", "1h")
    found = json.loads(ran.out)
    assert found["guest"] == "g1"
    assert found["step"] == 10
    assert all("begin" in each and each["point"]["guest"] == "g1" for each in found["points"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nobody",), "guest nobody: nothing of it in the journal"),
        (("g1", "--since", "soon"), "expected 14:03"),
        (("g1", "--since", "1h", "--until", "2h"), "expected a time before --until"),
        (("g1", "--since", "2099-01-01"), "expected a time before now"),
        (("g1", "--out", "x.jpg"), "x.jpg: expected a name that ends in .svg or .png"),
        (("g1", "--out", "/proc/no/such/x.svg"), "/proc/no/such/x.svg: No such file or directory"),
        (("host", "--since", "9d", "--until", "8d"), "nothing of this time; it reaches from "),
        (("g1", "--since", "9d", "--until", "8d"), "nothing of it in the journal"),
        ((), "missing argument"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(journal: Path, words: tuple[str, ...], said: str) -> None:
    ran = ask(journal, *words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


def test_no_journal_and_a_damaged_one(tmp_path: Path) -> None:
    ran = called("plot", "g1", "--journal", str(tmp_path / "none"), run=tmp_path)
    assert (ran.code, "no journal" in ran.err) == (2, True)
    (tmp_path / "j").write_bytes(b"x" * 9999)
    ran = called("plot", "g1", "--journal", str(tmp_path / "j"), run=tmp_path)
    assert (ran.code, "not a database" in ran.err) == (4, True)


def test_history_as_csv_has_the_fields_of_json(journal: Path) -> None:
    words = ("history", "g1", "--since", "5h", "--journal", str(journal))
    ran = called(*words, "--csv", run=journal.parent)
    assert ran.code == 0, ran.err
    rows = list(csv.DictReader(ran.out.splitlines()))
    objects = [
        json.loads(line) for line in called(*words, "--json", run=journal.parent).out.splitlines()
    ]
    assert len(rows) == len(objects)
    for row, found in zip(rows, objects, strict=True):
        assert row.keys() == found.keys()
        assert row["guest"] == "g1"
        assert row["rounds"] == str(found["rounds"])
        assert row["target"] == ("" if found["target"] is None else str(found["target"]))
        assert row["begin"].count("T") == 1


def test_json_and_csv_are_not_both(journal: Path) -> None:
    words = ("history", "g1", "--json", "--csv", "--journal", str(journal))
    ran = called(*words, run=journal.parent)
    assert ran.code == 2
    assert "--json and --csv: expected one of them" in ran.err


@pytest.mark.parametrize("there", [None, 0o600, 0o644])
def test_a_picture_that_cannot_be_written_whole_costs_none(
    tmp_path: Path, there: int | None
) -> None:
    out = tmp_path / "x.svg"
    if there is not None:
        out.write_text("before")
        out.chmod(there)
    code = (
        "import resource, sys; from pathlib import Path; from qmpmem.cli import plot\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "plot.save(Path(sys.argv[1]), 'x' * 1000)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, out], capture_output=True, text=True, check=False
    )
    assert f"ConfigError: {out}: File too large" in ran.stderr
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"] * (there is not None)
    plot.save(out, "after")
    assert out.read_text() == "after"
    assert there in (None, out.stat().st_mode & 0o777)


def test_a_link_to_a_picture_stays_one(tmp_path: Path) -> None:
    out = tmp_path / "x.svg"
    out.symlink_to(tmp_path / "elsewhere.svg")
    plot.save(out, "new")
    assert out.is_symlink()
    assert out.read_text() == "new"


@needs_root("makes a link of another user")
def test_a_link_of_another_user_is_not_written_through(tmp_path: Path) -> None:
    out, victim = tmp_path / "x.svg", tmp_path / "victim"
    victim.write_text("before")
    out.symlink_to(victim)
    os.chown(out, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(ConfigError, match="a link of uid"):
        plot.save(out, "new")
    assert victim.read_text() == "before"
