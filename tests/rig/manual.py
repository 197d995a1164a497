"""README.md's tables of settings, made again: ``.venv/bin/python -m tests.rig.manual``."""

from qmpmem.configuration import manual
from tests.rig.readme import README


def main() -> None:
    """Write them."""
    README.write_text(manual.inserted(README.read_text()))


if __name__ == "__main__":
    main()
