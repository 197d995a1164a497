"""The file that keeps what the user chose in `qmpmem top`."""

import os
from pathlib import Path

import pytest

from qmpmem.errors import ConfigError
from qmpmem.top.settings import load, save, settings_path, text
from qmpmem.top.view_state import Settings

OTHER = Settings(
    sort="used",
    inverted=True,
    filter='state:distress "x" >4G',
    suffering_only=True,
    percent_of_host=True,
    columns=("cost", "swap"),
    pane="plot",
)


@pytest.mark.parametrize("settings", [Settings(), OTHER])
def test_what_is_kept_is_read(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "a" / "top.toml"
    save(path, settings)
    assert load(path) == settings
    assert list(path.parent.iterdir()) == [path]


def test_every_setting_is_kept() -> None:
    assert all(f"\n{name} = " in text(OTHER) for name in Settings.__struct_fields__)


def test_without_a_file_all_is_as_usual(tmp_path: Path) -> None:
    assert load(tmp_path / "none") == Settings()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("sort = 'size'", "sort: 'size' is none of"),
        ("columns = ['max', 'x']", "columns: 'x' is none of"),
        ("filter = 'colour:red'", "begins with state:"),
        ("colour = 'red'", "colour"),
        ("inverted = 1", "inverted"),
        ("pane = 'x'", "pane"),
        ("sort = ", "Invalid value"),
        ("\x00", "top.toml"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "top.toml"
    path.write_text(content)
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert said in raised.value.message
    assert str(path) in raised.value.message
    assert "\n" not in raised.value.message
    assert path.read_text() == content


def test_bytes_that_are_no_text_are_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "top.toml"
    path.write_bytes(b"sort = '\xff'")
    with pytest.raises(ConfigError):
        load(path)


def test_what_cannot_be_kept_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        save(tmp_path / "file" / "top.toml", Settings())
    (tmp_path / "top.toml").mkdir()
    with pytest.raises(ConfigError):
        load(tmp_path / "top.toml")
    with pytest.raises(ConfigError):
        save(tmp_path / "top.toml", Settings())
    assert [each.name for each in tmp_path.glob(".*")] == []


def test_what_others_put_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    for name in ("top.toml", f".top.toml.{os.getpid()}"):
        (tmp_path / name).symlink_to("victim")
    save(tmp_path / "top.toml", OTHER)
    assert (tmp_path / "victim").read_text() == "kept"
    assert load(tmp_path / "top.toml") == OTHER
    assert not (tmp_path / "top.toml").is_symlink()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "/h"}, "/h/.config/qmpmem/top.toml"),
        ({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "/x/qmpmem/top.toml"),
        ({}, "/.config/qmpmem/top.toml"),
    ],
)
def test_where_the_file_is(environ: dict[str, str], expected: str) -> None:
    assert str(settings_path(environ)) == expected
