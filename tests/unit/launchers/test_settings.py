"""QMPMEM_ settings."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers.kvm_launch import TEXT_LIMIT, read_host_defaults
from launchers.kvm_settings import SettingError, read_settings


def test_without_settings() -> None:
    settings = read_settings({}, "")
    assert (settings.static, settings.balloon, settings.incoming_balloon) == (False, True, True)
    assert settings.ask_script is False
    assert (settings.ksm, settings.domain, settings.run) == (None, None, None)


def test_all_settings() -> None:
    settings = read_settings(
        {
            "QMPMEM_MODE": "static",
            "QMPMEM_BALLOON": "off",
            "QMPMEM_INCOMING_BALLOON": "off",
            "QMPMEM_ASK_SCRIPT": "on",
            "QMPMEM_KSM": "off",
            "QMPMEM_DOMAIN": "tenant-1.a_b",
            "QMPMEM_RUN_DIR": "/run/x",
        },
        "",
    )
    assert (settings.static, settings.balloon, settings.incoming_balloon) == (True, False, False)
    assert settings.ask_script is True
    assert (settings.ksm, settings.domain, settings.run) == (False, "tenant-1.a_b", "/run/x")


def test_the_environment_wins_over_the_defaults() -> None:
    defaults = "# site\n\nQMPMEM_KSM=off\nQMPMEM_MODE='static'\nQMPMEM_DOMAIN=\"a\"\nOTHER=x y\n"
    settings = read_settings({"QMPMEM_KSM": "on", "QMPMEM_MODE": ""}, defaults)
    assert (settings.ksm, settings.static, settings.domain) == (True, True, "a")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("QMPMEM_MODE", "Static"),
        ("QMPMEM_MODE", "dynamic"),
        ("QMPMEM_BALLOON", "yes"),
        ("QMPMEM_KSM", "1"),
        ("QMPMEM_INCOMING_BALLOON", " on"),
        ("QMPMEM_DOMAIN", "a b"),
        ("QMPMEM_DOMAIN", "a" * 65),
        ("QMPMEM_DOMAIN", "\udcff"),
        ("QMPMEM_RUN_DIR", "relative"),
    ],
)
def test_nonsense_is_refused(key: str, value: str) -> None:
    with pytest.raises(SettingError, match=key):
        read_settings({key: value}, "")


@pytest.mark.parametrize("line", ["QMPMEM_KSM", "export QMPMEM_KSM=on", "=x", "QMPMEM_KSM =on"])
def test_a_line_of_the_defaults_that_is_no_setting_is_refused(line: str) -> None:
    with pytest.raises(SettingError, match="/etc/site line 2"):
        read_settings({}, f"# first\n{line}\n", "/etc/site")


def test_defaults_that_are_too_large_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "defaults"
    path.write_text("#" * TEXT_LIMIT)
    assert read_host_defaults(str(path)) == "#" * TEXT_LIMIT
    path.write_text("#" * TEXT_LIMIT + "\nQMPMEM_MODE=static\n")
    with pytest.raises(SettingError, match=f"{path}: expected a readable file"):
        read_host_defaults(str(path))


@given(st.text())
def test_any_text_gives_settings_or_one_error(text: str) -> None:
    with contextlib.suppress(SettingError):
        read_settings({}, text)
