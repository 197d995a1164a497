"""What the log tells of QMP sessions, however many there are (row F100)."""

import asyncio

import pytest

from qmpmem.api.qmp_log import LOST, QUIET, SESSIONS, TOLD, QmpLog, SessionCounts


@pytest.fixture
def said() -> list[str]:
    return []


async def test_of_many_sessions_of_a_user_the_first_are_told_and_the_others_counted(
    said: list[str],
) -> None:
    counts = SessionCounts(said.append)
    assert [counts.may_tell(7, SESSIONS) for _ in range(100)] == [True] * TOLD + [False] * (
        100 - TOLD
    )
    assert counts.may_tell(8, SESSIONS)
    assert counts.may_tell(7, LOST)
    assert said == []
    await asyncio.sleep(QUIET + 1)
    assert said == [f"uid 7: qmp: {100 - TOLD} more sessions within 60 s"]
    assert counts.may_tell(7, SESSIONS)


async def test_what_was_counted_is_told_at_the_end(said: list[str]) -> None:
    counts = SessionCounts(said.append)
    for _ in range(TOLD + 3):
        counts.may_tell(7, LOST)
    counts.close()
    assert said == ["uid 7: qmp: 3 more sessions ended for other users within 60 s"]
    await asyncio.sleep(2 * QUIET)
    assert len(said) == 1


def test_a_command_that_is_no_query_is_told_by_name_in_whatever_session(said: list[str]) -> None:
    log = QmpLog(said.append, lambda: None, lambda _: False)
    log.begin(read_only=False)
    for command in ("query-status", "device_add", "device_add", "quit"):
        log.hear(command)
    log.lose("why it is ended")
    log.hear(None)
    assert said == ["device_add", "quit"]


def test_a_session_whose_begin_is_told_has_an_end(said: list[str]) -> None:
    answers = iter((True, False))
    log = QmpLog(said.append, lambda: None, lambda _: next(answers))
    log.begin(read_only=True)
    log.hear("query-status")
    log.lose("why it is ended")
    log.hear(None)
    assert said == ["a session begins that only reads", "the session has ended; commands: 1"]
