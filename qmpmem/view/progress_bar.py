"""A progress bar for a balloon on its way."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from qmpmem.units import Bytes, format_size

_SIZES: Final = len("  1023.9 MiB → 1023.9 MiB")
_CLOCK: Final = len(" 0:00:00")
_BAR: Final = _CLOCK + 12


@contextmanager
def progress_bar(name: str, start: Bytes, target: Bytes) -> Generator[Callable[[Bytes], None]]:
    """Draw a bar from start to target; what is yielded moves it to where the guest is."""
    with Progress(console=Console(), transient=True) as progress:
        room = progress.console.width - len(name) - _SIZES
        progress.columns = (
            TextColumn("{task.description}"),
            # Where there is little room, the bar goes, and not a part of the name.
            *([BarColumn()] if room >= _BAR else []),
            TextColumn("{task.fields[now]} → " + format_size(target)),
            *([TimeElapsedColumn()] if room >= _CLOCK else []),
        )
        task = progress.add_task(name, total=max(1, abs(target - start)), now=format_size(start))

        def show(actual: Bytes) -> None:
            moved = max(0, (actual - start) if target >= start else (start - actual))
            progress.update(task, completed=moved, now=format_size(actual))

        yield show
