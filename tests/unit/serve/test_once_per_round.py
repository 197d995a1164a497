"""Questions that are asked once in a round."""

import asyncio

import pytest

from qmpmem.errors import AgentUnreachable
from qmpmem.serve.once_per_round import OncePerRound


async def test_a_question_is_asked_once_in_a_round_for_each_key() -> None:
    version, asked = [0], list[str]()

    async def ask(key: str) -> str:
        asked.append(key)
        await asyncio.sleep(1)
        return f"{key}{version[0]}"

    once = OncePerRound(lambda: version[0], ask)
    found = await asyncio.gather(*map(once.get, ("a", "b", "a")))
    assert found == ["a0", "b0", "a0"]
    assert await once.get("a") == "a0"
    assert asked == ["a", "b"]
    version[0] = 1
    assert await once.get("a") == "a1"
    assert asked == ["a", "b", "a"]
    assert len(once._kept) == 1


async def test_a_failure_is_not_kept() -> None:
    answers = ["", "well"]

    async def ask(_: str) -> str:
        if answer := answers.pop(0):
            return answer
        raise AgentUnreachable("no agent runs", reason="none")

    once = OncePerRound(lambda: 0, ask)
    with pytest.raises(AgentUnreachable):
        await once.get("a")
    assert await once.get("a") == "well"


async def test_a_client_that_leaves_takes_the_answer_from_no_other() -> None:
    async def ask(key: str) -> str:
        await asyncio.sleep(1)
        return key

    once = OncePerRound(lambda: 0, ask)
    first, second = (asyncio.create_task(once.get("a")) for _ in range(2))
    await asyncio.sleep(0.5)
    first.cancel()
    assert await second == "a"
