"""What is logged, as a list of lines that know their level."""

import logging


class _Line(str):
    __slots__ = ("level",)
    level: str


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        line = _Line(record.getMessage())
        line.level = record.levelname
        self._lines.append(line)


def log_to(lines: list[str]) -> logging.Logger:
    """Make a log whose lines end in a list."""
    log = logging.Logger("test", logging.INFO)  # noqa: LOG001 - a logger that no other test has
    log.addHandler(_Lines(lines))
    return log


def level_of(line: str) -> str:
    """Give the level that a line was logged at."""
    assert isinstance(line, _Line), line
    return line.level
