"""Where the launchers are: in a checkout, and where a wheel was installed."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from qmpmem.files import launcher_paths
from tests.rig import readme

CHECKOUT = Path(__file__).parent.parent.parent.parent


def test_a_checkout_uses_its_own() -> None:
    assert launcher_paths.launchers_directory() == CHECKOUT / "launchers"


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd="/",
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    offline = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    run(sys.executable, "-m", "pip", "wheel", *offline, "-w", str(directory), str(CHECKOUT))
    return next(directory.glob("qmpmem-*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Install the wheel in an environment of its own."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    python = str(environment / "bin/python")
    offline = ("--quiet", "--no-deps", "--no-index")
    run(sys.executable, "-m", "pip", "--python", python, "install", *offline, str(wheel))
    return python


@pytest.mark.timeout(120)
def test_the_wheel_has_the_launchers_and_nothing_made_of_them(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "qmpmem/launchers/kvm" in names
    assert "qmpmem/py.typed" in names
    assert {f"qmpmem/manual/{path.name}" for path in readme.CHAPTERS} <= set(names)
    assert not [name for name in names if name.endswith(".pyc") or name.startswith(("tests", "la"))]
    # The guest of the tests and the demo stays in the checkout.
    assert not [name for name in names if "guest/" in name or "tinyguest" in name]
    programs = {name for name in names if name.startswith("qmpmem/launchers/")}
    ours = {path.name for path in (CHECKOUT / "launchers").iterdir() if path.is_file()}
    assert programs == {f"qmpmem/launchers/{name}" for name in ours - {"tinyguest"}}


@pytest.mark.timeout(120)
def test_the_wheel_says_what_it_needs_and_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = archive.read(name).decode()
    assert "\nVersion: 0.2.0\n" in metadata
    for needed in ("qemu-qmp<0.0.7,>=0.0.6", "uvicorn<0.55,>=0.54", "h11>=0.16"):
        assert f"\nRequires-Dist: {needed}\n" in metadata
    assert "\nClassifier: Typing :: Typed\n" in metadata


@pytest.mark.timeout(120)
def test_an_installed_package_finds_its_launchers_and_may_run_them(python: str) -> None:
    # The dependencies are lent from the environment of the tests, but not the checkout: that is
    # on the path by a .pth file, which counts in site directories only.
    lent = next(path for path in sys.path if path.endswith("site-packages"))
    found = run(
        python,
        "-c",
        "from qmpmem.files import launcher_paths; print(launcher_paths.launchers_directory())",
        PYTHONPATH=lent,
    )
    directory = Path(found.strip())
    assert directory.is_relative_to(Path(python).parent.parent)
    assert directory.name == "launchers"
    checkout = launcher_paths.launchers_directory()
    program = directory / "kvm"
    assert os.access(program, os.X_OK), program
    assert program.read_bytes() == (checkout / program.name).read_bytes()
