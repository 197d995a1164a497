"""The laws of a session that is shared."""

import json
import tracemalloc
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.proxy.allowed_commands import SHORT, Permit, everything, queries
from qmpmem.proxy.client import QUEUE, UNREAD, Client
from qmpmem.proxy.kept_bytes import MOST, KeptBytes
from qmpmem.proxy.multiplexer import TURN, TURN_BYTES, Multiplexer
from qmpmem.wire import limits

NEGOTIATE: Final = b'{"execute": "qmp_capabilities"}\n'
GREETING: Final = {"version": {"qemu": {"major": 7}, "package": ""}, "capabilities": ["oob"]}
FIRST: Final = 1000


class Bench:
    """Clients around a QEMU that answers each command with its name and arguments."""

    def __init__(self) -> None:
        self.core = Multiplexer(GREETING, FIRST)
        self.clients: list[Client] = []
        self.sent: list[Any] = []

    def client(
        self,
        permit: Permit = everything,
        *,
        negotiates: bool = True,
        user: int = 0,
        kept: KeptBytes | None = None,
    ) -> Client:
        client = Client(permit, user, kept)
        self.core.attach(client)
        self.clients.append(client)
        if negotiates:
            self.core.receive(client, NEGOTIATE)
            assert [*map(list, self.read(client))] == [["QMP"], ["return"]]
        return client

    def read(self, client: Client) -> list[Any]:
        return [json.loads(line) for line in self.core.take_output(client).splitlines()]

    def say(self, client: Client, command: str, **fields: object) -> None:
        self.core.receive(client, json.dumps({"execute": command, **fields}).encode())

    def take(self) -> Any:  # noqa: ANN401 - JSON
        """Take what is sent to QEMU."""
        request = self.core.take_request()
        if request is None:
            return None
        assert request.line.endswith(b"\n")
        message = json.loads(request.line)
        self.sent.append(message)
        return message

    def answer(self, message: Any) -> None:  # noqa: ANN401 - JSON
        value = [message["execute"], message.get("arguments")]
        line = json.dumps({"return": value, "id": message["id"]}).encode() + b"\r\n"
        assert self.core.take_answer(line)

    def work(self) -> None:
        """Have QEMU do all that there is to do."""
        while (message := self.take()) is not None:
            assert self.core.take_request() is None, "one command at a time"
            self.answer(message)
            self.go_on()

    def go_on(self) -> None:
        """Have all clients take their turns, as time passes."""
        while self.core.is_behind:
            self.turn()

    def turn(self) -> None:
        """Have one client that is behind take a turn."""
        self.core.go_on(self.core.behind[0])


def event(name: str = "STOP", size: int = 0) -> bytes:
    return json.dumps({"event": name, "data": {"a": "x" * size}}).encode() + b"\r\n"


def test_a_client_is_greeted_without_capabilities_that_are_not_offered() -> None:
    bench = Bench()
    greeting, *rest = bench.read(bench.client(negotiates=False))
    assert greeting == {"QMP": {"version": GREETING["version"], "capabilities": []}}
    assert not rest


IDS = st.none() | st.integers(0, 3) | st.text(max_size=2) | st.lists(st.integers(0, 2), max_size=2)


class Course(Bench):
    """A course of events by chance, and what each client must hear of it."""

    def __init__(self, clients: int) -> None:
        super().__init__()
        self.here = [self.client() for _ in range(clients)]
        self.expected: dict[Client, list[Any]] = {client: [] for client in self.here}
        self.heard: dict[Client, list[Any]] = {client: [] for client in self.here}
        self.in_qemu: Any = None
        self.number = 0

    def step(self, action: str, client: Client, identity: object) -> None:
        self.number += 1
        if action == "say":
            fields = {} if identity is None else {"id": identity}
            self.say(client, "x", arguments={"n": self.number}, **fields)
            self.expected[client].append({"return": ["x", {"n": self.number}], **fields})
        elif action == "take" and self.in_qemu is None:
            self.in_qemu = self.take()
        elif action == "answer":
            self.end()
        elif action == "event":
            self.core.take_event(event(f"E{self.number}"))
            for each in self.here:
                self.expected[each].append(f"E{self.number}")
        elif action == "read":
            self.heard[client] += self.read(client)
        elif action == "leave" and len(self.here) > 1:
            self.here.remove(client)
            self.core.detach(client)

    def end(self) -> None:
        if self.in_qemu is not None:
            self.answer(self.in_qemu)
            self.in_qemu = None


ACTIONS: Final = ("say", "say", "say", "take", "answer", "event", "read", "leave")


@given(st.data())
def test_each_answer_reaches_the_client_that_asked_with_its_id_in_its_order(
    data: st.DataObject,
) -> None:
    course = Course(data.draw(st.integers(1, 5)))
    for action in data.draw(st.lists(st.sampled_from(ACTIONS), max_size=40)):
        course.step(action, data.draw(st.sampled_from(course.here)), data.draw(IDS))
    course.end()
    course.work()
    for client in course.here:
        heard = course.heard[client] + course.read(client)
        answers = [each for each in heard if "event" not in each]
        assert answers == [each for each in course.expected[client] if isinstance(each, dict)]
        names = [each["event"] for each in heard if "event" in each]
        assert names == [each for each in course.expected[client] if isinstance(each, str)]
    identities = [message["id"] for message in course.sent]
    assert len(set(identities)) == len(identities)
    assert course.core.served is None


def test_clients_take_turns_however_much_one_sends() -> None:
    bench = Bench()
    greedy, modest = bench.client(), bench.client()
    for number in range(50):
        bench.say(greedy, f"greedy{number}")
    first = bench.take()
    bench.say(modest, "modest")
    bench.answer(first)
    bench.work()
    assert [each["execute"] for each in bench.sent[:3]] == ["greedy0", "modest", "greedy1"]


def test_what_a_client_that_left_was_waiting_for_reaches_no_one() -> None:
    """Row F91."""
    bench = Bench()
    left, stays = bench.client(), bench.client()
    bench.say(left, "a", id=1)
    bench.say(stays, "b", id=1)
    in_qemu = bench.take()
    bench.core.detach(left)
    assert bench.take() is None, "QEMU is at work for the client that left"
    bench.answer(in_qemu)
    assert left not in bench.core.take_touched()
    bench.work()
    assert bench.read(stays) == [{"return": ["b", None], "id": 1}]


def test_a_client_that_left_before_its_turn_asks_nothing() -> None:
    bench = Bench()
    left, stays = bench.client(), bench.client()
    bench.say(stays, "a")
    bench.take()
    bench.say(left, "quit")
    bench.core.detach(left)
    bench.answer(bench.sent[-1])
    assert bench.take() is None


def test_events_reach_all_that_have_negotiated() -> None:
    bench = Bench()
    new, first, second = bench.client(negotiates=False), bench.client(), bench.client()
    bench.core.take_event(event("STOP"))
    assert [each["event"] for each in bench.read(first)] == ["STOP"]
    assert [each["event"] for each in bench.read(second)] == ["STOP"]
    assert [list(each) for each in bench.read(new)] == [["QMP"]]


@pytest.mark.parametrize("line", [b"", b"x", b"[1]", b'{"return": {}, "id": "a1"}', b'{"a": 1}'])
def test_no_client_hears_what_is_no_event(line: bytes) -> None:
    bench = Bench()
    client = bench.client()
    assert not bench.core.take_answer(line)
    bench.core.take_event(line)
    assert bench.read(client) == []


@pytest.mark.parametrize(("readers", "size"), [(1, 3000), (4, 20_000), (2, 200_000)])
def test_a_full_queue_drops_its_own_client_alone(readers: int, size: int) -> None:
    bench = Bench()
    slow, quick = bench.client(), [bench.client() for _ in range(readers)]
    sent = 0
    while slow.ending is None:
        bench.core.take_event(event(size=size))
        sent += 1
        assert slow.waiting <= QUEUE
        assert all(len(bench.read(each)) == 1 for each in quick)
        assert sent < 10 + 2 * QUEUE // size
    assert slow.ending == "abort"
    assert slow in bench.core.take_touched()
    assert bench.core.take_output(slow) == b""
    bench.say(quick[0], "x")
    bench.work()
    assert bench.read(quick[0]) == [{"return": ["x", None]}]


def test_a_client_that_sends_and_never_reads_stops_itself() -> None:
    bench = Bench()
    deaf, other = bench.client(), bench.client()
    for _ in range(3000):
        bench.say(deaf, "query-long-name-of-a-command")
    bench.work()
    assert deaf.ending is None
    assert deaf.waiting <= UNREAD + 100
    assert deaf.is_full
    bench.say(other, "x")
    bench.work()
    assert bench.read(other) == [{"return": ["x", None]}]
    total = len(bench.read(deaf))
    while deaf.is_behind:
        bench.go_on()
        bench.work()
        total += len(bench.read(deaf))
    assert total == 3000


@pytest.mark.parametrize("message", [b"{}", b"[]\n", b"a\n", b'{"execute": "quit"}'])
def test_a_client_that_is_refused_again_and_again_takes_turns(message: bytes) -> None:
    bench = Bench()
    many, other = bench.client(queries), bench.client(queries)
    count = 40_000
    bench.core.receive(many, message * count)
    bench.core.receive(many, message)
    assert many.is_full
    total = turns = 0
    while many.is_behind:
        answers = len(bench.core.take_output(many).splitlines())
        assert answers <= TURN
        total += answers
        turns += 1
        bench.turn()
        if turns == 3:
            bench.say(other, "query-status")
            bench.work()
            assert bench.read(other) == [{"return": ["query-status", None]}]
            total += len(bench.read(many))
    assert total + len(bench.read(many)) == count + 1
    assert not many.is_full


def test_while_time_is_short_messages_wait_until_they_are_gone_on_with() -> None:
    bench = Bench()
    late, other = bench.client(), bench.client()
    bench.core.receive(late, b'{"execute": "a"}{"execute": "b"}', is_late=True)
    assert bench.take() is None
    bench.core.receive(other, b'{"execute": "c"}')
    assert bench.take()["execute"] == "c"
    bench.answer(bench.sent[-1])
    bench.turn()
    message = bench.take()
    assert message["execute"] == "a"
    line = json.dumps({"return": {}, "id": message["id"]}).encode()
    assert bench.core.take_answer(line, is_late=True)
    assert bench.take() is None
    bench.turn()
    bench.work()
    assert bench.read(late) == [{"return": {}}, {"return": ["b", None]}]
    assert not bench.core.is_behind


def test_users_take_turns_however_many_clients_one_has() -> None:
    """Row F97."""
    bench = Bench()
    many, other = [bench.client(user=1) for _ in range(50)], bench.client(user=2)
    for each in many:
        bench.say(each, "greedy")
        bench.say(each, "greedy")
    first = bench.take()
    bench.say(other, "modest")
    bench.answer(first)
    bench.answer(bench.take())
    assert bench.take()["execute"] == "modest"


def test_long_messages_are_a_turn_sooner() -> None:
    bench = Bench()
    client = bench.client()
    message = b'{"x": "' + b"x" * (TURN_BYTES // 4) + b'"}'
    bench.core.receive(client, message * 8)
    assert len(bench.read(client)) == 4
    bench.turn()
    assert len(bench.read(client)) == 4


def test_a_client_that_left_behind_is_not_gone_on_with() -> None:
    bench = Bench()
    client = bench.client(queries)
    bench.core.receive(client, b"{}" * 1000)
    bench.core.detach(client)
    bench.core.take_output(client)
    assert not bench.core.is_behind
    bench.core.go_on(client)
    assert bench.core.take_touched() == []


def test_garbage_is_answered_and_disturbs_no_one() -> None:
    bench = Bench()
    odd, other = bench.client(), bench.client()
    bench.core.receive(odd, b'garbage\n\xff\n{"execute": 1, "id": 2}\n{"execute": "x", "id": 3}')
    bench.work()
    first, second, third, fourth = bench.read(odd)
    assert "error" in first
    assert "error" in second
    assert third["id"] == 2
    assert fourth == {"return": ["x", None], "id": 3}
    assert bench.read(other) == []


def test_a_message_without_end_ends_its_client() -> None:
    bench = Bench()
    client = bench.client()
    bench.core.receive(client, b'{"execute": "' + b"x" * limits.LINE)
    assert client.ending == "flush"
    assert "error" in bench.read(client)[0]
    bench.say(client, "quit")
    assert bench.take() is None


def test_a_session_that_may_not_do_everything_says_little_at_once() -> None:
    """Row F94."""
    bench = Bench()
    client = bench.client(queries)
    fits = b'{"execute": "query-status"}'.rjust(SHORT - 1) + b"\n"
    bench.core.receive(client, fits)
    bench.work()
    assert bench.read(client) == [{"return": ["query-status", None]}]
    assert client.room == SHORT + 1
    bench.core.receive(client, b'{"execute": "query-status", "id": "')
    bench.core.receive(client, b"x" * SHORT)
    assert client.ending == "flush"
    assert f"over {SHORT} bytes" in bench.read(client)[0]["error"]["desc"]


@pytest.mark.parametrize("permit", [queries, everything])
def test_what_is_read_ahead_is_bounded(permit: Permit) -> None:
    bench = Bench()
    client, held = bench.client(permit), 0
    bench.say(client, "query-status")
    while room := client.room:
        bench.core.receive(client, b" " * (room - 1) + b"{")
        held += room
    assert held <= min(UNREAD, client.longest)


def test_while_all_clients_have_sent_much_one_that_waits_is_not_read_from() -> None:
    """Row F94."""
    kept = KeptBytes()
    bench = Bench()
    message = json.dumps({"execute": "x", "arguments": {"a": "x" * (limits.LINE - 100)}}).encode()
    clients = [bench.client(kept=kept) for _ in range(2 * MOST // len(message))]
    for each in clients:
        assert each.room > limits.LINE, "each gets on: a whole message of it is read"
        bench.core.receive(each, message)
    assert kept.is_much
    assert all(each.is_full for each in clients)
    leaves, *stay = clients
    bench.core.detach(leaves)
    bench.work()
    assert kept._total < MOST
    assert all(bench.read(each) for each in stay)
    for each in stay:
        bench.core.detach(each)
    assert kept._total == 0


def test_what_waits_for_qemu_is_kept_as_bytes() -> None:
    """Row F94: 256 KiB of small numbers are 3 MiB of objects."""
    bench = Bench()
    client, first = bench.client(), bench.client()
    bench.say(first, "x")
    numbers = [-6] * (limits.LINE // 4)
    text = json.dumps({"execute": "x", "arguments": {"a": numbers}}, separators=(",", ":"))
    tracemalloc.start()
    try:
        bench.core.receive(client, text.encode())
        assert tracemalloc.get_traced_memory()[0] < 2 * limits.LINE
    finally:
        tracemalloc.stop()
    assert client.is_busy
    bench.work()
    assert bench.read(client)[0]["return"][1] == {"a": numbers}


def test_an_error_without_an_id_answers_what_qemu_did_not_understand() -> None:
    bench = Bench()
    client = bench.client()
    bench.say(client, "x", id=1)
    bench.take()
    assert bench.core.take_answer(b'{"error": {"class": "GenericError", "desc": "JSON"}}\r\n')
    assert bench.read(client) == [{"error": {"class": "GenericError", "desc": "JSON"}, "id": 1}]
    assert not bench.core.take_answer(b'{"error": {"class": "GenericError", "desc": "JSON"}}\r\n')


def test_a_late_answer_of_the_session_before_is_no_ones() -> None:
    bench = Bench()
    client = bench.client()
    bench.say(client, "x")
    bench.take()
    for line in (b'{"return": 1, "id": 999}', b'{"return": 1, "id": "1000"}', b'{"return": 1}'):
        assert not bench.core.take_answer(line)
    bench.answer(bench.sent[-1])
    assert bench.read(client) == [{"return": ["x", None]}]


PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            NEGOTIATE,
            b'{"execute": "x", "id": 1}',
            b'{"execute": "query-a"}\n',
            b'{"execute": ',
            b"}",
            b"\n",
            b'{"exec-oob": "x"}\n',
            b'{"execute": "x", "arguments": [' + b"[" * 40,
            b'{"execute": "\\ud800"}\n',
            b'{"execute": "x", "id": 1e999}\n',
            b'{"execute": "x", "id": ' + b"9" * 50 + b"}\n",
            b'{"\\u0000": 1, "execute": "x"}\n',
        ]
    ),
)


@given(st.lists(PIECES, max_size=30))
def test_whatever_a_client_sends_qemu_gets_commands_and_no_one_else_notices(
    pieces: list[bytes],
) -> None:
    bench = Bench()
    odd, other = bench.client(negotiates=False), bench.client()
    for piece in pieces:
        bench.core.receive(odd, piece)
        while (message := bench.take()) is not None:
            assert set(message) <= {"execute", "arguments", "id"}
            assert isinstance(message["execute"], str)
            assert type(message["id"]) is int
            bench.answer(message)
        for answer in bench.read(odd):
            assert set(answer) <= {"QMP", "return", "error", "id"}
    assert bench.read(other) == []
    bench.say(other, "x", id=[None])
    bench.work()
    assert bench.read(other) == [{"return": ["x", None], "id": [None]}]


@given(st.lists(st.binary(max_size=60) | st.builds(event), max_size=20))
def test_whatever_qemu_sends_no_client_gets_what_is_not_its_own(lines: list[bytes]) -> None:
    bench = Bench()
    first, second = bench.client(), bench.client()
    bench.say(first, "x", id="mine")
    bench.take()
    for line in lines:
        if not bench.core.take_answer(line):
            bench.core.take_event(line)
    for client in (first, second):
        assert all("event" in message for message in bench.read(client))
    bench.answer(bench.sent[-1])
    assert bench.read(first) == [{"return": ["x", None], "id": "mine"}]
