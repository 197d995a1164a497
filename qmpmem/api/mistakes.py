"""Mistakes of ours that cost one answer or one guest, as lines of the log."""

import logging


def report(log: logging.Logger, what: str, error: Exception) -> str:
    """Log a mistake in one line; where DEBUG is logged, its traceback is in that line.

    Args:
        log: where.
        what: what it happened in.
        error: the mistake.

    Returns:
        The mistake in words.
    """
    words = f"{type(error).__name__}: {error}"
    log.error("%s: %s", what, words, exc_info=error if log.isEnabledFor(logging.DEBUG) else None)
    return words
