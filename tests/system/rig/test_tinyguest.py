"""The tiny guest itself, booted: what the other tests of real guests stand on."""

import hashlib
import json
import math
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from launchers.guest import channel
from launchers.guest.build import Artifacts
from launchers.guest.errors import ChannelError, ChannelTimeoutError
from tests.rig import chance
from tests.rig.guests import PLAIN, RunningGuest, boot
from tests.rig.patience import patient, within
from tests.rig.qemu import until

TURNS: Final = 10
"""Measurements of two things that are compared, at the most."""
PROGRAM: Final = Path(__file__).resolve().parents[3] / "launchers/tinyguest"

MACHINES: Final = {
    "pc": "virtio-balloon-pci",
    "q35": "virtio-balloon-pci",
    "microvm": "virtio-balloon-device",
}

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.timeout(120),  # a boot takes 3 s here, and much longer beside other tests
    pytest.mark.usefixtures("artifacts"),
]


@pytest.fixture(scope="module")
def shared(artifacts: Artifacts) -> Iterator[RunningGuest]:
    """Lend one guest to the tests that leave it as they found it."""
    assert artifacts.kernel.exists()
    with boot() as guest:
        yield guest


@pytest.fixture
def guest(shared: RunningGuest) -> Iterator[RunningGuest]:
    yield shared
    shared.check("eat stop")


def run(*words: str) -> subprocess.CompletedProcess[bytes]:
    words = (sys.executable, str(PROGRAM), *words)
    return subprocess.run(words, capture_output=True, check=False, timeout=patient(60))


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def balloon(monitor: Path, size: int) -> None:
    """Ask QEMU by QMP for another size, in bytes, over a connection of its own."""
    commands: tuple[dict[str, object], ...] = (
        {"execute": "qmp_capabilities"},
        {"execute": "balloon", "arguments": {"value": size}},
    )
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(patient(10))
        connection.connect(str(monitor))
        with connection.makefile("rw") as stream:
            for command in commands:
                stream.write(json.dumps(command) + "\n")
                stream.flush()
                while "return" not in json.loads(stream.readline()):
                    pass


WITH_DEFAULTS: Final = tuple(word for word in PLAIN if word != "-nodefaults")


@pytest.mark.parametrize(
    ("machine", "base"),
    [
        *((machine, PLAIN) for machine in MACHINES),
        *chance.some([(machine, WITH_DEFAULTS) for machine in MACHINES]),
    ],
)
def test_it_boots_and_its_balloon_works(
    machine: str, base: tuple[str, ...], tmp_path: Path
) -> None:
    monitor = tmp_path / "q"
    extra = ("-machine", machine, "-device", MACHINES[machine])
    with boot(base=base, extra=(*extra, "-qmp", f"unix:{monitor},server=on,wait=off")) as guest:
        bound = guest.check("ls /sys/bus/virtio/drivers/virtio_balloon")
        assert "virtio0" in bound
        total = int(guest.check("free -m").splitlines()[1].split()[1])
        assert 190 < total < 256
        before = guest.meminfo("MemTotal")
        balloon(monitor, 192 << 20)
        until(lambda: guest.meminfo("MemTotal") <= before - 60, what="64 MiB were given")
        assert guest.meminfo("MemTotal") >= before - 66
        balloon(monitor, 256 << 20)
        until(lambda: guest.meminfo("MemTotal") >= before - 2, what="they came back")
        assert guest.poweroff() == 0


@pytest.mark.parametrize("code", [0, 1, 37, 126, 255])
def test_the_exit_code_comes_through(guest: RunningGuest, code: int) -> None:
    assert guest.execute(f"exit {code}") == (code, "")


def test_a_command_that_is_not_there_is_127_and_its_complaint_comes_through(
    guest: RunningGuest,
) -> None:
    code, output = guest.execute("nonsense")
    assert code == 127
    assert "nonsense" in output


def test_a_command_ended_by_a_signal_shows_so(guest: RunningGuest) -> None:
    assert guest.execute("kill -9 $$").code == 137


@pytest.mark.parametrize(
    "text", ['it\'s "$HOME" `id` \\', "a\nb\n\n c", "ünï → 漢字", "-n", "%s %d", "end x 0\nbegin x"]
)
def test_odd_words_come_through(guest: RunningGuest, text: str) -> None:
    done = run("exec", str(guest.channel), "--", "printf", "%s", text)
    assert (done.returncode, done.stdout.decode()) == (0, text)


def test_one_word_is_a_line_for_the_shell(guest: RunningGuest) -> None:
    done = run("exec", str(guest.channel), "--", "echo $((6*7)) | tr 4 5; exit 3")
    assert (done.returncode, done.stdout) == (3, b"52\n")


def test_every_byte_comes_through(guest: RunningGuest) -> None:
    octal = "".join(f"\\{byte:03o}" for byte in range(256))
    answer = channel.execute(guest.channel, f"printf '{octal}'")
    assert answer.output == bytes(range(256))


def test_more_than_a_terminal_keeps_comes_through(guest: RunningGuest) -> None:
    size = 192 << 10  # a tty keeps 64 KiB; an emulated serial port takes 20 s for a MiB
    command = f"head -c {size} /dev/urandom >/tmp/x; cat /tmp/x; md5sum </tmp/x; rm /tmp/x"
    output = channel.execute(guest.channel, command, seconds=patient(60)).output
    content, said = output[:size], output[size:]
    assert len(content) == size
    assert said.split()[0].decode() == md5(content)


def test_a_command_of_the_longest_length_runs(guest: RunningGuest) -> None:
    command = "true " + "x" * (channel.LONGEST_COMMAND - 5)
    assert guest.execute(command) == (0, "")


def test_an_abandoned_command_ends_and_the_next_one_is_answered(guest: RunningGuest) -> None:
    with pytest.raises(ChannelTimeoutError):
        guest.execute("echo half; sleep 1234", timeout=1)
    assert guest.execute("echo whole") == (0, "whole\n")
    assert "sleep 1234" not in guest.check("ps")


def test_half_a_command_does_not_run(guest: RunningGuest) -> None:
    whole = channel.request("n1", "echo this; : " + "x" * 99)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(patient(20))
        connection.connect(str(guest.channel))
        connection.sendall(whole[:-60] + b"\n")
        with connection.makefile("rb") as answers:
            assert next(line for line in answers if b"n1" in line) == b"refused n1\n"
    assert guest.execute("echo next") == (0, "next\n")


def test_what_calls_setsid_outlives_its_command(guest: RunningGuest) -> None:
    guest.check(
        "setsid sh -c 'echo $$ >/tmp/pid; exec sleep 4321' >/dev/null 2>&1 &"
        " until [ -s /tmp/pid ]; do usleep 10000; done"
    )
    assert "sleep 4321" in guest.check("ps")
    guest.check("kill $(cat /tmp/pid); rm /tmp/pid")


def test_clients_take_turns(guest: RunningGuest) -> None:
    words = [sys.executable, str(PROGRAM), "exec", str(guest.channel), "--"]
    clients = [
        subprocess.Popen([*words, f"sleep 0.2; echo {number}"], stdout=subprocess.PIPE)
        for number in range(4)
    ]
    assert [client.communicate()[0] for client in clients] == [b"0\n", b"1\n", b"2\n", b"3\n"]


@pytest.mark.parametrize("kind", ["zero", "same", "random", "half", "churn"])
def test_eaten_memory_is_resident_when_eat_returns_and_free_when_it_stops(
    guest: RunningGuest, kind: str
) -> None:
    before = guest.meminfo("MemAvailable")
    guest.check(f"eat {kind} 80")
    assert before - 95 < guest.meminfo("MemAvailable") < before - 50
    _, said_kind, asked, held, state = guest.check("eat status").split()
    assert (said_kind, asked, held, state) == (kind, "80", "80", "held")
    left = guest.check("pid=$(eat status | cut -d' ' -f1); eat stop; cat /proc/$pid/stat || true")
    assert "No such file" in left
    # Pages that are being reported free are taken out of the free lists for a moment.
    until(lambda: guest.meminfo("MemAvailable") > before - 12, what="it is free")
    assert guest.check("eat status") == ""


def page_sums(guest: RunningGuest, pages: tuple[int, ...]) -> list[str]:
    """Sum up some pages of the one program that holds memory."""
    pid = guest.check("eat status").split()[0]
    maps = guest.check(f"cat /proc/{pid}/maps").splitlines()
    ranges = [re.split("[- ]", line)[:2] for line in maps]
    start, end = max(((int(a, 16), int(b, 16)) for a, b in ranges), key=lambda r: r[1] - r[0])
    assert end - start >= 20 << 20
    return [
        guest.check(
            f"dd if=/proc/{pid}/mem bs=4096 count=1 iflag=skip_bytes skip={start + 4096 * page}"
            " 2>/dev/null | md5sum"
        ).split()[0]
        for page in pages
    ]


PAGES: Final = (0, 1, 4000, 5119)


def test_zero_pages_are_zero_and_the_same_are_the_same(guest: RunningGuest) -> None:
    guest.check("eat zero 20")
    assert set(page_sums(guest, PAGES)) == {md5(bytes(4096))}
    guest.check("eat stop; eat same 20")
    first = set(page_sums(guest, PAGES))
    assert first == {md5(b"\x5a" * 4096)}


def test_random_pages_stay_and_equal_no_others(guest: RunningGuest) -> None:
    guest.check("eat random 20")
    first = page_sums(guest, PAGES)
    assert len(set(first)) == len(PAGES)
    assert page_sums(guest, PAGES) == first
    guest.check("eat stop; eat random 20")
    assert not set(page_sums(guest, PAGES)) & set(first)


def test_churning_pages_change(guest: RunningGuest) -> None:
    guest.check("eat churn 20")
    first = page_sums(guest, PAGES)
    until(
        lambda: not set(page_sums(guest, PAGES)) & set(first), seconds=30, what="all pages changed"
    )


def test_cache_is_memory_that_the_guest_can_take_back(guest: RunningGuest) -> None:
    free, available = guest.meminfo("MemFree"), guest.meminfo("MemAvailable")
    guest.check("eat cache 100")
    assert guest.meminfo("MemFree") < free - 90
    assert guest.meminfo("MemAvailable") > available - 15
    guest.check("eat random 130")
    assert "killed" not in guest.check("eat status")
    assert guest.meminfo("Buffers") < 80
    guest.check("eat stop")
    assert guest.meminfo("MemFree") > free - 15


def test_half_pages_compress_to_a_half(guest: RunningGuest) -> None:
    guest.check("eat half 20")
    assert len(set(page_sums(guest, PAGES))) == len(PAGES)
    pid = guest.check("eat status").split()[0]
    start = max(
        (line.split("-") for line in guest.check(f"cat /proc/{pid}/maps").splitlines()),
        key=lambda ends: int(ends[1].split()[0], 16) - int(ends[0], 16),
    )[0]
    at = int(start, 16) + 4096 * PAGES[2]
    read = f"dd if=/proc/{pid}/mem bs=4096 count=1 iflag=skip_bytes skip={at} 2>/dev/null"
    assert 2048 < int(guest.check(f"{read} | gzip -c | wc -c")) < 2200


@pytest.mark.parametrize("what", ["touches", "reads /dev/nullb0"])
def test_work_says_how_fast_it_was(guest: RunningGuest, what: str) -> None:
    guest.check("[ -b /dev/nullb0 ] || modprobe null_blk nr_devices=1 gb=65536 queue_mode=0")
    said = guest.check(f"work {what} 20 1 2 1000")
    count, median, p99, longest = (int(word) for word in said.split())
    assert 10 < count < 2000
    assert median <= p99 <= longest < 2_000_000


@pytest.mark.parametrize(
    "words", ["", "reads", "touches 20 1 2", "touches 0 0 1 0", "touches x 0 1 0", "lunch 1 1 1 1"]
)
def test_work_that_cannot_be_understood_is_refused(guest: RunningGuest, words: str) -> None:
    assert guest.execute(f"work {words}").code == 1


@pytest.mark.parametrize("disk", ["/dev/nonsense", "/dev/null"])
def test_work_needs_a_disk_that_is_large_enough(guest: RunningGuest, disk: str) -> None:
    assert guest.execute(f"work reads {disk} 20 0 1 0").code == 1


def test_growing_goes_on_up_to_its_end(guest: RunningGuest) -> None:
    def held() -> int:
        return int(guest.check("eat status").split()[3])

    guest.check("eat grow 40 60")
    sizes = [held()]
    while sizes[-1] < 60:
        sizes.append(held())
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 3
    assert guest.check("eat status").split()[1:] == ["grow", "60", "60", "held"]


def test_what_the_kernel_killed_shows_so(guest: RunningGuest) -> None:
    guest.check("eat random 60")
    code, output = guest.execute("eat random 400")
    assert code == 137
    assert "137" in output
    states = [line.split()[-1] for line in guest.check("eat status").splitlines()]
    assert "killed" in states
    until(lambda: "Out of memory: Killed process" in guest.console.read_text(errors="replace"))


def test_a_command_that_eats_too_much_is_killed_and_the_agent_is_not(guest: RunningGuest) -> None:
    assert guest.execute("dd if=/dev/zero of=/dev/null bs=210M count=1").code == 137
    assert guest.execute("echo here") == (0, "here\n")


def test_the_eater_is_killed_before_any_command(guest: RunningGuest) -> None:
    guest.check("eat random 60")
    guest.check("dd if=/dev/zero of=/dev/null bs=160M count=1")
    assert guest.check("eat status").split()[-1] == "killed"


@pytest.mark.parametrize("words", ["", "random", "random x", "grow 5", "lunch 5", "cache -1"])
def test_a_meal_that_makes_no_sense_is_refused(guest: RunningGuest, words: str) -> None:
    code, output = guest.execute(f"eat {words}")
    assert code == 2
    assert "eat grow MIB_PER_SECOND MAX_MIB" in output


def test_filling_memory_at_random_takes_no_longer_than_touching_it(guest: RunningGuest) -> None:
    """By QEMU's emulation: 0.6 s for 100 MiB, nearly all of it the guest kernel's for the pages.

    Beside other programs a processor does as little as half in its time, for some seconds, so both
    are measured in turns, and the least of each counts.
    """
    takes = {"zero": math.inf, "random": math.inf}
    for _ in range(TURNS):
        for kind, least in takes.items():
            takes[kind] = min(least, guest.processor_time(f"eat {kind} 100 && eat stop"))
        if takes["random"] < 2 * takes["zero"]:
            return
    raise AssertionError(takes)


def reboot_and_fail(guest: RunningGuest) -> None:
    first = guest.check("cat /proc/sys/kernel/random/boot_id")
    with pytest.raises(ChannelError, match="restarted"):
        guest.execute("reboot -f", timeout=60)
    guest.wait_until_up()
    assert guest.check("cat /proc/sys/kernel/random/boot_id") != first
    raise ZeroDivisionError


def test_a_reboot_is_noticed_and_survived_and_a_failing_test_leaves_no_guest() -> None:
    with pytest.raises(ZeroDivisionError), boot() as guest:
        reboot_and_fail(guest)
    assert guest.process.returncode is not None
    assert not guest.directory.exists()


def test_a_panic_is_a_restart_and_a_guest_that_ended_is_not_waited_for() -> None:
    with boot() as guest:
        with pytest.raises(ChannelError, match="restarted"):
            guest.execute("echo c >/proc/sysrq-trigger", timeout=60)
        assert "sysrq triggered crash" in guest.console.read_text(errors="replace")
        guest.process.kill()
        with pytest.raises(ChannelError):
            guest.execute("true")


def test_a_guest_that_does_not_come_up_says_why_at_once() -> None:
    nonsense = ("-device", "nonsense")
    with within(10), pytest.raises(AssertionError, match="nonsense"), boot(extra=nonsense):
        pass


def test_the_commands_play_together(tmp_path: Path, artifacts: Artifacts) -> None:
    paths = json.loads(run("build").stdout)
    assert paths == {"kernel": str(artifacts.kernel), "initrd": str(artifacts.initrd)}
    path = str(tmp_path / "c")
    words = run("args", "--channel", path).stdout.decode()
    assert not re.search(r"\S\s\S", words.replace("\n", ""))  # so a shell needs no quotes
    process = subprocess.Popen(["qemu-system-x86_64", *PLAIN, "-m", "256", *words.split()])
    try:
        assert run("wait", path).returncode == 0
        assert run("exec", path, "--", "sh", "-c", "exit 37").returncode == 37
        assert run("exec", "--timeout", "0.5", path, "--", "sleep 60").returncode == 124
        assert run("poweroff", path).returncode == 0
        assert process.wait(timeout=patient(10)) == 0
    finally:
        process.kill()
        process.wait()


def test_the_kernel_needs_no_decompression(artifacts: Artifacts) -> None:
    """Debian's kernels of today are understood: it costs every guest CPU time where one is not."""
    assert artifacts.kernel.read_bytes().startswith(b"\x7fELF")


def test_builds_at_once_take_turns_and_need_no_network(
    tmp_path: Path, artifacts: Artifacts
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("apt-get", "apt-cache"):
        (tools / name).write_text("#!/bin/sh\nexit 100\n")
        (tools / name).chmod(0o755)
    cache = tmp_path / "cache"
    (cache / "making-of-one-that-was-killed").mkdir(parents=True)
    (cache / "packages").symlink_to(artifacts.kernel.parents[1] / "packages")
    builds = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), "build", "--dir", str(cache)],
            env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    said = [build.communicate() for build in builds]
    assert [build.returncode for build in builds] == [0, 0], said
    assert said[0][0] == said[1][0]
    assert sum(stderr.count(b"built") for _, stderr in said) == 1
    assert sorted(path.name for path in cache.iterdir() if "guest-" not in path.name) == [
        "lock",
        "packages",
    ]
    built = json.loads(said[0][0])
    assert Path(built["initrd"]).read_bytes() == artifacts.initrd.read_bytes()
