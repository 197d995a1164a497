"""A progress bar for a balloon on its way."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from qmpmem.units import Bytes, format_size


@contextmanager
def progress_bar(name: str, start: Bytes, target: Bytes) -> Generator[Callable[[Bytes], None]]:
    """Draw a bar from start to target; what is yielded moves it to where the guest is."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[now]} → " + format_size(target)),
        TimeElapsedColumn(),
    )
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(name, total=max(1, abs(target - start)), now=format_size(start))

        def show(actual: Bytes) -> None:
            moved = max(0, (actual - start) if target >= start else (start - actual))
            progress.update(task, completed=moved, now=format_size(actual))

        yield show
