"""`make man`: manual pages of all chapters, which man and mandoc read without a complaint."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.rig import pages, readme

BUILDER = "go-md2man"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each page by its name and section, as in ``qmpmem.1``."""
    if shutil.which(BUILDER) is None:
        pytest.skip(f"missing: {BUILDER}")
    return {path.name: path for path in pages.write(tmp_path_factory.mktemp("man"))}


def read(page: Path) -> str:
    """Read a page as man shows it on 80 columns."""
    done = subprocess.run(
        ["man", "-P", "cat", "-l", str(page)],
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "80", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_every_chapter_has_a_page_and_the_commands_have_one(written: dict[str, Path]) -> None:
    assert len(written) == len(readme.CHAPTERS) + 1
    assert {
        "qmpmem.1",
        "qmpmem-agent.1",
        "qmpmem.toml.5",
        "qmpmem-policy.7",
        "qmpmem-api.7",
    } <= set(written)
    assert written["qmpmem.toml.5"].parent.name == "man5"


@pytest.mark.parametrize("tool", ["man", "mandoc"])
def test_no_page_has_a_fault(written: dict[str, Path], tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"missing: {tool}")
    words = {
        "man": ["man", "--warnings", "-P", "cat", "-l"],
        "mandoc": ["mandoc", "-T", "lint", "-W", "warning"],
    }[tool]
    for page in written.values():
        done = subprocess.run([*words, str(page)], capture_output=True, text=True, check=False)
        said = done.stderr if tool == "man" else done.stdout
        # The page of the commands is written by users, too, and has no day.
        assert [line for line in said.splitlines() if "missing date" not in line] == []


def test_a_page_says_what_its_chapter_says(written: dict[str, Path]) -> None:
    if shutil.which("man") is None:
        pytest.skip("missing: man")
    page = " ".join(read(written["qmpmem.toml.5"]).replace("\N{HYPHEN}\n", "").split())
    assert "qmpmem.toml - qmpmem.toml: the agent's configuration" in page
    assert "takes: a time from 0.1s to 1min" in page
    assert "qmpmem-agent(1)" in page
    assert "(config.md)" not in page


def test_the_day_of_a_page_can_be_given(
    written: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert written
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    by_name = {path.name: path for path in pages.write(tmp_path)}
    assert "1970-01-01" in by_name["qmpmem-api.7"].read_text()
