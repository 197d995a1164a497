"""Lines that end a session, and what they say of themselves."""

import pytest

from qmpmem.wire.limits import MalformedError
from qmpmem.wire.receiver import Receiver

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (b'{"class": "GenericError", "desc": "the session is ended"}', "the session is ended"),
        (b'{"desc": "two\\nlines \\u001b[31m"}', "two\\nlines \\x1b[31m"),
        (b'{"desc": 5}', "does not say more"),
        (b"{}", "does not say more"),
        (b"5", "does not say more"),
        (b"null", "does not say more"),
    ],
)
def test_an_error_that_answers_no_request_ends_the_session_by_its_own_words(
    error: bytes, words: str
) -> None:
    receiver = Receiver("g", 0.0)
    receiver.take(GREETING, 0.0, ())
    with pytest.raises(MalformedError, match="answers no request") as raised:
        receiver.take(b'{"error": %s}\r\n' % error, 0.0, ())
    assert str(raised.value).endswith(words)
