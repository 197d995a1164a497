"""The command line."""

from qmpmem.cli.app import main

__all__ = ["main"]
