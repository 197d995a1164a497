"""Where the launchers are: beside the package in a checkout, inside it when installed.

A wheel carries them as ``qmpmem/launchers`` (see ``tool.hatch`` in pyproject.toml).
"""

from pathlib import Path

from qmpmem.errors import LaunchError


def launchers_directory() -> Path:
    """Find the directory that holds the launchers.

    Raises:
        LaunchError: this copy of qmpmem came without them.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / "launchers", package.parent / "launchers"):
        if (candidate / "kvm").is_file():
            return candidate
    raise LaunchError(f"{package}: the launchers are missing", hint="install qmpmem again")


def tinyguest() -> Path:
    """Name the program that builds and runs the guest of the tests and the demo.

    Raises:
        LaunchError: this copy of qmpmem came without the launchers.
    """
    return launchers_directory() / "tinyguest"
