"""Which of the agent's sockets a question goes to, and to which next: rules without I/O.

Theory of operation:
    A question is asked at one socket after the other until one has a place for it. `walk` yields
    each attempt, and is sent what came of it, so that a client that blocks and one in an event loop
    keep to the same rules.

    The first round waits for no socket. A socket whose queue is full says nothing against this
    user, so it is waited for in the second round, if nothing else has answered.
"""

from collections.abc import Generator, Mapping
from pathlib import Path

from qmpmem.api import addresses, messages
from qmpmem.records import Record


class Attempt(Record, frozen=True):
    """Connect to a socket, and ask there."""

    path: Path
    waits: bool
    """Wait for a place in its queue, as long as an answer may take."""


Outcome = OSError | bytes
"""What came of an attempt: why there is no connection, or the answer."""
Answer = bytes | Mapping[Path, OSError]
"""What came of all: the answer, or why no socket took a connection."""
Steps = Generator[Attempt, Outcome | None, Answer]


def ways(path: Path, method: str) -> tuple[Path, ...]:
    """Return the sockets to try for a question, in this order.

    At the socket to look, a change is refused, with the reason, and logged.

    Args:
        path: of the socket to look; that for changes is beside it.
        method: of HTTP.
    """
    admin = addresses.admin_path(path)
    return (path, admin) if method == "GET" else (admin, path)


def walk(path: Path, method: str) -> Steps:
    """Yield each attempt to ask, and return what came of all.

    A change is asked once: where its answer is lost, it may have been made.

    Args:
        path: of the socket to look.
        method: of HTTP.
    """
    answer, errors = b"", dict[Path, OSError]()
    for waits in (False, True):
        for each in ways(path, method):
            if waits and not isinstance(errors.get(each), BlockingIOError):
                continue
            outcome = yield Attempt(path=each, waits=waits)
            if isinstance(outcome, bytes):
                answer = messages.better(answer, outcome)
                if method != "GET" or not messages.is_busy(answer):
                    return answer
            elif outcome is not None:
                errors[each] = outcome
                if stops(method, outcome):
                    break
        if answer:
            return answer
    return errors


def advance(steps: Steps, outcome: Outcome | None = None) -> Attempt | Answer:
    """Return the next attempt, or what came of all.

    Args:
        steps: as `walk` makes them.
        outcome: of the attempt before; None: there was none.
    """
    try:
        return next(steps) if outcome is None else steps.send(outcome)
    except StopIteration as end:
        answer: Answer = end.value
        return answer


def stops(method: str, error: OSError) -> bool:
    """Tell whether a socket that takes no connection is the end of a round.

    A change waits for a socket that is full, and does not go to the other, where it would be
    refused.
    """
    if method == "GET":
        return not isinstance(error, PermissionError | BlockingIOError | TimeoutError)
    return not isinstance(error, PermissionError)
