"""Where the launchers are: beside the package in a checkout, inside it when installed.

A wheel carries them as ``qmpmem/launchers`` (see ``tool.hatch`` in pyproject.toml).
"""

import importlib.util
from pathlib import Path
from types import ModuleType

from qmpmem.errors import LaunchError


def launchers_directory() -> Path:
    """Find the directory that holds the launchers.

    Raises:
        LaunchError: this copy of qmpmem came without them.
    """
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "launchers", package.parent / "launchers"):
        if (candidate / "kvm").is_file():
            return candidate
    raise LaunchError(f"{package}: the launchers are missing", hint="install qmpmem again")


def load_launcher(name: str) -> ModuleType:
    """Load one module of the launchers that needs no other.

    They are no part of this package, because they must start without it.

    Raises:
        LaunchError: this copy of qmpmem came without it.
    """
    path = launchers_directory() / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"launchers.{name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise LaunchError(f"{path}: missing", hint="install qmpmem again")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
