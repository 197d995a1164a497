"""One guest's QMP session for many clients, with real QEMUs."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Final

import pytest

from qmpmem.proxy.allowed_commands import QUERIES, TAKEN
from tests.rig.chance import cases
from tests.rig.command import PROGRAM, called, plain_environment, qmpmem
from tests.rig.patience import patient
from tests.rig.qemu import BALLOON, paused, short_directory, until
from tests.rig.talker import listening, talking

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]

MANY: Final = 100


@pytest.fixture
def run() -> Iterator[Path]:
    """A run directory with one guest that has a free slot or two."""
    with short_directory() as directory, paused(directory / "run", "web1"):
        yield directory / "run"


async def test_a_hundred_clients_have_a_session_each(run: Path) -> None:
    async def work(path: Path, number: int) -> None:
        async with talking(path) as talker:
            assert talker.greeting["QMP"]["capabilities"] == []
            for _ in range(3):
                talker.send("qom-list-types", 1, implements=f"no-such-type-{number}")
                talker.send("query-status", [number, {"same": 1}])
                talker.send(f"no-such-command-{number}", "1")
            for _ in range(3):
                assert await talker.answer() == {"return": [], "id": 1}
                assert (await talker.answer())["id"] == [number, {"same": 1}]
                failed = await talker.answer()
                assert failed["id"] == "1"
                assert f"no-such-command-{number} " in failed["error"]["desc"]

    with listening(run, "web1") as (path, _):
        await asyncio.gather(*(work(path, number) for number in range(MANY)))


async def test_events_reach_all_clients(run: Path) -> None:
    with listening(run, "web1") as (path, _):
        async with talking(path) as first, talking(path) as second:
            assert await first.run("cont") == {"return": {}}
            assert (await second.event("RESUME"))["timestamp"]["seconds"] > 0
            assert "RESUME" in first.events
            assert (await second.run("query-status"))["return"]["running"] is True


async def test_one_that_never_reads_and_one_that_dies_disturb_no_one(run: Path) -> None:
    with listening(run, "web1") as (path, child):
        async with talking(path) as deaf, talking(path) as quick:
            for _ in range(2000):
                deaf.send("query-qmp-schema", 1)
            for number in range(20):
                async with talking(path) as dying:
                    dying.send("query-qmp-schema", 2)
                    dying.send("stop")
                assert (await quick.run("query-name", number)) == {"return": {}, "id": number}
        until(lambda: resident(child.pid) < 200 << 20, what="its memory is bounded")
        async with talking(path) as last:
            assert (await last.run("query-name", 3)) == {"return": {}, "id": 3}


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def test_garbage_is_answered_and_no_one_else_notices(run: Path) -> None:
    """Row F92."""
    with listening(run, "web1") as (path, _):
        async with talking(path, negotiates=False) as odd, talking(path) as other:
            for garbage in (b"garbage\n", b"\xff\xfe\n", b"[]\n", b'{"execute": "x\n', b"{]\n"):
                odd.writer.write(garbage)
                assert (await odd.read())["error"]["class"] == "GenericError"
            assert (await odd.run("query-name"))["error"]["class"] == "CommandNotFound"
            assert await odd.run("qmp_capabilities", 5) == {"return": {}, "id": 5}
            # What QEMU itself would answer without an id, so that no client could be told of it.
            for text in ("\uffff", "\ufdd0"):
                refused = await odd.run("qom-get", 6, path=text, property="x")
                assert refused["id"] == 6
            assert "error" in await odd.run(
                "qom-get", 7, path="\u0000\u00e9\U0001f600", property=""
            )
            odd.writer.write(b'{"execute": "' + b"x" * (1 << 20))
            assert "error" in await odd.read()
            assert await odd.read() is None
            assert await other.run("query-name", 1) == {"return": {}, "id": 1}


async def test_what_ends_the_guest_is_answered_and_ends_all(run: Path) -> None:
    with listening(run, "web1") as (path, child):
        async with talking(path) as first, talking(path) as second:
            assert await first.run("quit", 1) == {"return": {}, "id": 1}
            await second.event("SHUTDOWN")
            assert await second.read() is None
            assert await first.answer() is None
        assert await asyncio.to_thread(child.wait, patient(20)) == 0
        assert not path.exists()
        assert not path.parent.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_stopped_it_leaves_nothing_and_the_guest_goes_on(run: Path, number: int, code: int) -> None:
    with listening(run, "web1") as (path, child):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        child.send_signal(number)
        assert child.wait(patient(20)) == code
        assert not path.parent.exists()
    assert called("qmp", "web1", "query-name", "--json", run=run).out == "{}\n"


def test_a_socket_at_a_place_of_ones_own(run: Path) -> None:
    place = run / "p.sock"
    with listening(run, "web1", str(place)) as (path, child):
        assert path == place
        assert path.stat().st_mode & 0o777 == 0o600
        child.kill()
        child.wait()
    assert place.exists(), "a killed one leaves its socket"
    with listening(run, "web1", str(place)):
        taken = called("qmp", "web1", "--listen", str(place), "--json", run=run)
        assert taken.code in (2, 5)
    assert not place.exists()
    place.write_text("mine")
    refused = called("qmp", "web1", "--listen", str(place), run=run)
    assert (refused.code, place.read_text()) == (2, "mine")
    assert "not a socket of this user" in refused.err
    long = called("qmp", "web1", "--listen", "/tmp/" + "x" * 200, run=run)
    assert (long.code, "107 at most" in long.err) == (2, True)


async def test_read_only_refuses_what_changes(run: Path) -> None:
    with listening(run, "web1", "--read-only") as (path, child):
        async with talking(path) as talker:
            for command in (
                "quit",
                "system_reset",
                "device_add",
                "human-monitor-command",
                "qom-set",
            ):
                refused = await talker.run(command, 4)
                assert refused["id"] == 4
                assert "only reads" in refused["error"]["desc"]
            assert (await talker.run("query-status"))["return"]["running"] is False
            assert child.poll() is None
    refusal = called("qmp", "web1", "quit", "--read-only", "--json", run=run)
    assert refusal.code == 6
    assert json.loads(refusal.out)["error"]["reason"] == "GenericError"


async def test_a_session_that_reads_plugs_no_processor_in() -> None:
    """A query sets the properties of a processor that it makes, `realized` among them."""
    processor = {"socket-id": 1, "core-id": 0, "thread-id": 0, "realized": True}
    model = {"name": "qemu64", "props": processor}
    spare = (*BALLOON, "-smp", "1,maxcpus=2,sockets=2")
    with short_directory() as directory, paused(directory / "run", "web1", extra=spare):
        run = directory / "run"
        with listening(run, "web1", "--read-only") as (path, _):
            async with talking(path) as talker:
                asked = await talker.run("query-cpu-model-expansion", type="full", model=model)
                assert "only reads" in asked["error"]["desc"]
                assert len((await talker.run("query-cpus-fast"))["return"]) == 1
        all_of_it = called(
            "qmp",
            "web1",
            "query-cpu-model-expansion",
            "type=full",
            f"model={json.dumps(model)}",
            run=run,
        )
        assert all_of_it.code == 0
        plugged = called("qmp", "web1", "query-cpus-fast", "--json", run=run)
        assert len(json.loads(plugged.out)) == 2, "what the attempt before was for"


async def test_the_queries_of_this_qemu_are_known(run: Path) -> None:
    """Each is let through, or is one of those that do more than read."""
    with listening(run, "web1", "--read-only") as (path, _):
        async with talking(path) as talker:
            found = (await talker.run("query-commands"))["return"]
            names = {each["name"] for each in found if each["name"].startswith("query-")}
            for name in sorted(names):
                answer = await talker.run(name)
                is_refused = "only reads" in str(answer.get("error"))
                assert is_refused == name.startswith(("query-cpu-model", "query-firmware")), name


def test_the_arguments_of_this_qemus_queries_are_known(run: Path) -> None:
    """Row F94: no query loses an argument that it takes, nor one of the kind that it takes."""
    schema = json.loads(called("qmp", "web1", "query-qmp-schema", "--json", run=run).out)
    entities = {each["name"]: each for each in schema}
    takes = {
        name: {member["name"] for member in entities[each["arg-type"]]["members"]}
        | {"vcpus" for _ in entities[each["arg-type"]].get("variants", ())}
        for name, each in entities.items()
        if each["meta-type"] == "command" and name in QUERIES
    }
    assert len(takes) > 60
    for name, members in takes.items():
        assert members <= TAKEN.get(name, {}).keys(), name
    wrong = {"boolean": 1, "integer": "x", "string": True}
    with_names = {name: kinds for name, kinds in TAKEN.items() if takes.get(name)}
    assert "query-stats" in with_names
    for name, kinds in with_names.items():
        for member in kinds.keys() & takes[name]:
            value = wrong.get(kinds[member].called, 1)
            words = [f"{member}={json.dumps(value)}"]
            words += ["target=vcpu"] if "target" in kinds and member != "target" else []
            words += ["name=x"] if "name" in kinds and member != "name" else []
            told = called("qmp", "web1", name, *words, run=run)
            assert f"'{member}'" in told.err, "it is not of another kind"
            assert "is unexpected" not in told.err


def test_one_command(run: Path) -> None:
    shown = called("qmp", "web1", "query-status", run=run)
    assert (shown.code, json.loads(shown.out)["status"]) == (0, "prelaunch")
    line = called("qmp", "web1", "query-status", "--json", run=run).out
    assert json.loads(line) == json.loads(shown.out)
    assert line.count("\n") == 1
    added = called("qmp", "web1", "device_add", "driver=virtio-rng-pci", "id=rng1", run=run)
    assert (added.code, added.out) == (0, "{}\n")
    again = called("qmp", "web1", "device_add", "driver=virtio-rng-pci", "id=rng1", run=run)
    assert again.code == 6
    assert "rng1" in again.err
    assert len(called("qmp", "web1", "query-qmp-schema", "--json", run=run).out) > 100_000
    for call, words in (
        (("device_add", "driver"), "KEY=VALUE"),
        (("device_add", "a=1", "a=2"), "twice"),
        (("device_add", "a=1", "a.b=2"), "has a value"),
        (("device_add", "a={x"), "not JSON"),
        (("query-status", "--listen"), "--listen takes no COMMAND"),
    ):
        refused = called("qmp", "web1", *call, run=run)
        assert refused.code == 2, refused
        assert words in refused.err
    assert called("qmp", "none", "query-status", run=run).code == 2
    for odd in ("a=\udcff", "a=" + "9" * 30, "a=" + "[" * 40 + "]" * 40, "a=\uffff"):
        refused = called("qmp", "web1", "qom-get", odd, run=run)
        assert (refused.code, refused.err.startswith("qmpmem: guest web1: qom-get: ")) == (6, True)


def test_a_session_on_stdin_and_stdout(run: Path) -> None:
    """As `socat - UNIX:SOCKET` gives it, and no answer is lost at the end of the input."""
    text = '{"execute": "qmp_capabilities"}{"execute": "query-qmp-schema", "id": 1}\n{"execute": '
    ran = qmpmem("qmp", "web1", run=run, text=text + '"query-name",\n "id": 2}')
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [next(iter(line)) for line in lines] == ["QMP", "return", "return", "return"]
    assert [line.get("id") for line in lines] == [None, None, 1, 2]
    assert ran.code == 0
    ended = qmpmem("qmp", "web1", run=run, text='{"execute":"qmp_capabilities"}{"execute":"quit"}')
    assert ended.code == 0
    assert '"return"' in ended.out.splitlines()[-1] or "SHUTDOWN" in ended.out


QMP_SHELL: Final = Path(sys.executable).with_name("qmp-shell")


def test_qmp_shell_works_through_it(run: Path, tmp_path: Path) -> None:
    said = (
        "query-status\ndevice_add driver=virtio-rng-pci id=rng1\nqom-list path=/machine/peripheral"
    )
    with listening(run, "web1") as (path, _):
        done = subprocess.run(
            [QMP_SHELL, path],
            input=said,
            capture_output=True,
            text=True,
            env=plain_environment() | {"HOME": str(tmp_path)},
            timeout=patient(30),
            check=False,
        )
    assert "Connected to QEMU" in done.stdout, done.stderr
    assert '"status": "prelaunch"' in done.stdout
    assert '"rng1"' in done.stdout


def test_a_slow_command_is_said_to_be_one(run: Path) -> None:
    """A FIFO that no process writes to blocks QEMU's main loop."""
    fifo = run / "f"
    subprocess.run(["mkfifo", fifo], check=True)
    node = json.dumps(
        {
            "driver": "blkdebug",
            "config": str(fifo),
            "node-name": "x",
            "image": {"driver": "null-co"},
        }
    )
    words = [f"{key}={json.dumps(value)}" for key, value in json.loads(node).items()]
    late = called("qmp", "web1", "blockdev-add", *words, "--timeout", "1s", run=run)
    assert late.code == 5
    assert "no answer to blockdev-add in 1s" in late.err
    with fifo.open("w"):
        pass


def test_without_a_standard_input_there_is_nothing_to_ask(run: Path) -> None:
    environment = plain_environment() | {"QMPMEM_RUN_DIR": str(run)}
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" qmp web1 <&-', PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=patient(30),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert '"QMP"' in done.stdout


async def test_more_clients_than_there_are_descriptors_for_are_sent_away(run: Path) -> None:
    limit = ("prlimit", "--nofile=180:180")
    with listening(run, "web1", before=limit) as (path, child):
        async with AsyncExitStack() as stack:
            greeted = []
            for _ in range(60):
                reader, writer = await asyncio.open_unix_connection(str(path))
                # Of the writer itself: since Python 3.13 one that is forgotten ends its connection.
                stack.callback(abort, writer)
                greeted.append(b"QMP" in await reader.readline())
            assert 10 <= sum(greeted) < 60
        async with asyncio.timeout(patient(10)):
            while not await is_greeted(path):  # the others have not been seen to leave yet
                pass
        child.terminate()
        assert child.stderr is not None
        assert child.stderr.read() == ""


def abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def is_greeted(path: Path) -> bool:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        return b"QMP" in await reader.readline()
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("seed", cases(4, 0, 1))
async def test_whatever_is_asked_is_answered_and_the_session_lives(run: Path, seed: int) -> None:
    """QEMU understands what it is sent: none of its answers lacks an id."""
    dice = Random(seed)  # noqa: S311 - not a secret
    with listening(run, "web1") as (path, _):
        async with talking(path) as talker, talking(path) as other:
            for number in range(300):
                message = {
                    "execute": dice.choice(["query-name", "qom-get", "qom-list", "x"]),
                    "arguments": {word(dice): value(dice) for _ in range(dice.randrange(4))},
                    "id": number,
                }
                talker.writer.write(json.dumps(message, ensure_ascii=dice.random() < 0.5).encode())
                answer = await talker.answer()
                assert answer is not None, (message, "the session ended")
                assert "error" in answer or "return" in answer
                assert not answer.get("error", {}).get("desc", "").startswith("JSON"), message
                if answer.get("id") != number:  # not even JSON: refused before QEMU sees it
                    assert answer["error"]["desc"].startswith("QMP input: "), (message, answer)
            assert await other.run("query-name", 1) == {"return": {}, "id": 1}


def word(dice: Random) -> str:
    letters = 'ab "\\/\n\x00\x7f\u00e9\ufdd0\uffff\U0001f600\U0010ffff\u2028%'
    return dice.choice(["path", "property", "".join(dice.choices(letters, k=dice.randrange(6)))])


def value(dice: Random, depth: int = 0) -> object:
    plain = [
        0,
        -1,
        2**63,
        2**64 - 1,
        2**64,
        -(2**63),
        -(2**63) - 1,
        10**25,
        1.5,
        -0.0,
        1e308,
        5e-324,
    ]
    if depth > 3 or dice.random() < 0.7:
        return dice.choice([*plain, True, False, None, "/machine", word(dice)])
    if dice.random() < 0.5:
        return [value(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {word(dice): value(dice, depth + 1) for _ in range(dice.randrange(4))}
