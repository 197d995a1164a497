"""What the agent asks of a guest, and what it hears meanwhile."""

from collections.abc import Mapping

from tests.rig.agent_scenarios import is_seen, play
from tests.rig.fakeguest import Answer, FakeHost
from tests.rig.invariants import Watched


def test_an_event_while_a_guest_is_asked_is_not_lost() -> None:
    """It stops after it said that it runs, while the same look still asks for its sizes."""

    async def scene(host: FakeHost, seen: Watched) -> None:
        guest = host.guests["a"]
        await seen.until(lambda: is_seen(seen, "a"))
        answer = guest.reply

        def reply(command: str, words: Mapping[str, object]) -> Answer:
            found = answer(command, words)
            if command == "query-memory-size-summary" and guest.state == "running":
                guest.state = "paused"
                guest.event("STOP")
            return found

        guest.reply = reply  # type: ignore[method-assign]
        guest.event("RESUME")
        await seen.rounds(4)
        reading = seen.reading("a")
        assert reading is not None
        assert reading.state == "paused"

    play(scene, "a")
