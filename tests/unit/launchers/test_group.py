"""Where a launcher may make a cgroup for its guest: hierarchies, containers, units of systemd."""

import os
from pathlib import Path
from typing import Final

import pytest

from launchers import kvm_group
from launchers.kvm_settings import SettingError, Settings
from qmpmem.wire.kernel import cgroup
from tests.rig.users import needs_root

V1: Final = "35 31 0:32 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
V2: Final = "41 31 0:38 {top} {point} rw - cgroup2 cgroup2 rw,nsdelegate\n"
OTHER: Final = "34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
PURE: Final = V2.format(top="/", point="/sys/fs/cgroup")
BOTH: Final = OTHER + V1.format(top="/") + V2.format(top="/", point="/sys/fs/cgroup/unified")


def places(root: Path, mounts: str, names: str, chosen: str = "on") -> tuple[list[str], str]:
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/mountinfo").write_text(mounts)
    (root / "proc/self/cgroup").write_text(names)
    found, why = kvm_group.find_places(chosen, str(root))
    return [str(Path(place.parent).relative_to(root / "sys/fs/cgroup")) for place in found], why


@pytest.mark.parametrize(
    ("mounts", "names", "chosen", "expected"),
    [
        (PURE, "0::/\n", "on", ["qmpmem"]),
        (PURE, "0::/vms\n", "on", ["vms/qmpmem"]),
        (PURE, "0::/vms\n", "/other/one", ["other/one/qmpmem"]),
        (BOTH, "4:memory:/a\n1:cpu:/b\n0::/c\n", "on", ["memory/a/qmpmem", "unified/c/qmpmem"]),
        (BOTH, "4:memory:/a\n0::/c\n", "/v", ["memory/v/qmpmem", "unified/v/qmpmem"]),
        (BOTH, "4:memory:/a\n", "on", ["memory/a/qmpmem"]),
        (V1.format(top="/docker/1"), "4:memory:/docker/1\n", "on", ["memory/qmpmem"]),
        (V1.format(top="/docker/1"), "4:memory:/docker/1/b\n", "on", ["memory/b/qmpmem"]),
        (V1.format(top="/docker/1"), "4:memory:/docker/12\n", "on", []),
        (PURE, "0::/../outside\n", "on", []),
        (PURE, "", "on", []),
        (OTHER, "1:cpu:/\n", "on", []),
        ("odd\n1 2 - cgroup2\n", "0::/\n", "on", []),
    ],
)
def test_a_group_goes_below_the_launcher_s_own_or_the_one_that_is_named(
    tmp_path: Path, mounts: str, names: str, chosen: str, expected: list[str]
) -> None:
    found, why = places(tmp_path, mounts, names, chosen)
    assert found == expected
    assert (why == "") == bool(expected)


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ("", ""),
        ("system.slice", ""),
        ("system.slice/vm@web1.service", "system.slice/vm@web1.service"),
        ("system.slice/vm@web1.service/inner", "system.slice/vm@web1.service"),
        ("user.slice/user-0.slice/session-3.scope", "user.slice/user-0.slice/session-3.scope"),
        ("u.slice/user@7.service/app.slice/x.scope", "u.slice/user@7.service/app.slice/x.scope"),
        ("docker/scope", ""),
    ],
)
def test_units_are_known_by_their_names(inside: str, expected: str) -> None:
    assert kvm_group.unit_of(inside) == expected


@needs_root("root owns nothing by being the owner")
@pytest.mark.parametrize("chosen", ["on", "/vms"])
def test_a_unit_s_group_is_left_or_divided_only_where_it_is_delegated(
    tmp_path: Path, chosen: str
) -> None:
    unit = tmp_path / "sys/fs/cgroup/system.slice/vm.service"
    (unit / "inner").mkdir(parents=True)
    names = "0::/system.slice/vm.service/inner\n"
    found, why = places(tmp_path, PURE, names, chosen)
    assert found == []
    assert why == "vm.service is not delegated (systemd-run --scope -p Delegate=yes)"
    try:
        os.setxattr(unit, "user.delegate", b"1")
    except OSError:
        pytest.skip("this file system has no attributes of users")
    expected = "vms/qmpmem" if chosen == "/vms" else "system.slice/vm.service/inner/qmpmem"
    assert places(tmp_path, PURE, names, chosen) == ([expected], "")


def test_a_user_s_own_units_are_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = tmp_path / "sys/fs/cgroup/user@7.service"
    unit.mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: unit.stat().st_uid or 1234)
    if unit.stat().st_uid == 0:
        assert not kvm_group.is_delegated(str(unit))
        os.chown(unit, 1234, -1)
    assert kvm_group.is_delegated(str(unit))
    assert not kvm_group.is_delegated(str(unit / "gone"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", None), ("off", None), ("on", "on"), ("/vms", "/vms"), ("/a/b.slice/", "/a/b.slice")],
)
def test_the_setting(text: str, expected: str | None) -> None:
    assert Settings({"QMPMEM_CGROUP": text}).cgroup == expected


@pytest.mark.parametrize("text", ["yes", "vms", "/", "//", "/a//b", "/a/../b", "/.", "/a\nb"])
def test_a_setting_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="expected on, off or a path such as /vms"):
        Settings({"QMPMEM_CGROUP": text})


def test_only_an_empty_group_of_a_launcher_is_removed(tmp_path: Path) -> None:
    """As far as directories that are no cgroups can show it: none of them is empty."""
    for name in ("qmpmem/g", "other/g"):
        (tmp_path / name).mkdir(parents=True)
        cgroup.remove_empty(tmp_path / name)
        assert (tmp_path / name).is_dir()
    (tmp_path / "qmpmem/g/cgroup.procs").write_text("")
    cgroup.remove_empty(tmp_path / "qmpmem/g")
    assert (tmp_path / "qmpmem/g").is_dir()
    assert cgroup.OURS == kvm_group.OURS
