"""Command lines by chance (row F77), as people write them: the emulator gets them byte for byte.

30 other ones in each run, and 10,000 in `make soak`. They are made of the lines of
tests/data/command_lines.txt: put together anew, damaged, or beside words of no sense. The emulator
is a script that writes down how it was started.

What the launcher adds comes after the user's words, and is what it says itself: in the guest's
record, or in a line about why not.
"""

import json
import os
import random
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from launchers.kvm_options import ALONE, WITH_ARGUMENT, Line
from launchers.kvm_plan import why_unchanged
from tests.rig import chance, lines
from tests.rig.launcher import NASTY, PLAYED, SHIM, Emulator
from tests.rig.patience import patient
from tests.rig.qemu import short_directory

COUNT: Final = 30
SOAK_COUNT: Final = 500
SOAK_PARTS: Final = 20
"""10,000 in all."""
LONG_COUNT: Final = 4
SOAK_LONG_COUNT: Final = 200
"""Of those that only just fit into what the kernel takes."""

SCRIPT: Final = """#!/bin/sh
case "$*" in *" stdio -machine none,accel=tcg:kvm") exec cat "$0.answers" ;; esac
printf '%s\\0' "$@" >"$0.words"
exit 7
"""
"""As that of the rig, but it opens nothing that a word may name."""

Words = tuple[bytes, ...]
SOAK: Final = pytest.mark.soak

SEEDS: Final[tuple[Words, ...]] = tuple(
    tuple(os.fsencode(word) for word in shlex.split(each.text)) for each in lines.read()
)


def options(words: Words) -> Iterator[Words]:
    """Take a line apart into options, each with what follows it."""
    start = 0
    for at in range(1, len(words) + 1):
        if at == len(words) or words[at].startswith(b"-"):
            yield words[start:at]
            start = at


OPTIONS: Final[tuple[Words, ...]] = tuple(
    sorted({option for each in SEEDS for option in options(each)})
)
NO_ROOM: Final = "Argument list too long"
"""What a shell says where Python's words are too many; then it starts the emulator itself."""
FILES: Final = (b"nothing.conf", b"broken.conf", b"balloon.conf", b"q35.conf", b"pipe", b"shared")
ODD: Final[tuple[Words, ...]] = (
    *((word,) for word in NASTY if len(word) < 1000),
    *((b"-readconfig", file) for file in (*FILES, b"-", b"/dev/zero", b"/dev/full", b"", b"@x")),
    *((b"-set", word) for word in (b"device.x.driver=y", b"", b"=", b"machine..type=none")),
    *((b"-" + word.encode(),) for word in sorted(ALONE | WITH_ARGUMENT)),
    *((b"--" + word.encode(), b"x") for word in sorted(WITH_ARGUMENT)),
    *((b"-M=pc",), (b"-m=1G",), (b"@options",), (b"--",), (b"-",), (b"",), (b"\xff\xfe",)),
    *((b"-name", word) for word in (b"\xff", b"a/b", b"..", b"x" * 300, b"\n", b"guest=")),
    (b"-append", b"-M none -device virtio-balloon-pci " * 100),
    (b"-device", b'{"driver":"' + b"[" * 2000 + b'"}'),
    (b"-device", b"{" * 60_000),
)

TEXT: Final = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b""))
ANY_OPTION: Final = st.sampled_from(OPTIONS) | st.sampled_from(ODD) | st.tuples(TEXT)


def join(parts: Sequence[Words]) -> Words:
    return tuple(word for part in parts for word in part)


@st.composite
def damaged(draw: st.DrawFn) -> Words:
    """Damage a whole line in up to four places."""
    words = list(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(words) - 1))
        word = words[at]
        place = draw(st.integers(0, len(word)))
        piece = draw(TEXT)
        kinds: tuple[tuple[bytes, ...], ...] = (
            (),
            (word, word),
            (word[:place] + piece + word[place:],),
            (word[:place],),
            (b"-" + word,),
            (word + b"=" + piece,),
            (word.replace(b",", b",,"),),
            (word.replace(b"=", b"", 1),),
            (word, *draw(ANY_OPTION)),
            (piece,),
        )
        words[at : at + 1] = draw(st.sampled_from(kinds))
        words = words or [b""]
    return tuple(words)


ANY_LINE: Final = st.one_of(
    damaged(),
    st.lists(ANY_OPTION, max_size=12).map(join),
    st.sampled_from(SEEDS),
)
QUIET: Final = {"BALLOON": "off"}
"""Then the emulator is not asked what it can do."""
SETTINGS: Final = st.sampled_from(
    [
        *(QUIET,) * 6,
        *({}, {"KSM": "on"}, {"MODE": "static", "BALLOON": "off"}, {"CURRENT": "25%"}),
        *({"DOMAIN": "web", "BALLOON": "off"}, {"INCOMING_BALLOON": "off"}),
    ]
)


class Tried:
    """What came of a command line."""

    def __init__(self, given: Words, got: Sequence[bytes], said: str, record: Any) -> None:  # noqa: ANN401 - JSON
        assert tuple(got[: len(given)]) == given
        self.added = [os.fsdecode(word) for word in got[len(given) :]]
        self.said = said.splitlines()
        self.record = record
        self.why_none = why_unchanged(Line([os.fsdecode(word) for word in given]))

    def check(self) -> None:
        if any(line.endswith(NO_ROOM) for line in self.said):
            assert (self.added, self.record) == ([], None), self.said
            assert len(self.said) == 1, self.said
            return
        assert all(line.startswith("qmpmem: ") for line in self.said), self.said
        if any(line.endswith("; the guest starts unchanged") for line in self.said):
            assert (self.added, self.record) == ([], None)
            return
        if self.why_none is not None:
            expected = [f"qmpmem: nothing added: {self.why_none}"] if self.why_none else []
            assert (self.added, self.record) == ([], None)
            assert _shown(self.said) == _shown(expected)
            return
        self._check_added()

    def _check_added(self) -> None:
        """Hold what was added against the guest's record."""
        left = list(self.added)
        if self.record is not None:
            assert left[0] == "-readconfig"
            assert re.fullmatch(r"/proc/self/fd/\d+", left[1])
            del left[:2]
        if left[:1] == ["-mem-prealloc"]:
            del left[:1]
        if left[:1] == ["-machine"]:
            assert left[1] in ("mem-merge=on", "mem-merge=off")
            del left[:2]
        added = None
        if left:
            assert left[0] == "-device"
            [device] = left[1:]
            found = json.loads(device)
            assert found["driver"].startswith("virtio-balloon-")
            added = found["id"]
        known = None if self.record is None else self.record.get("balloon")
        assert known == added


def _shown(text: Sequence[str]) -> list[str]:
    """Leave out of a line what was quoted of words: how that is shown is not the matter here."""
    return [re.sub(r"[^ a-z:]+", "", line.partition(": ")[2])[:30] for line in text]


class Ground:
    """Where command lines are tried."""

    def __init__(self, directory: Path) -> None:
        self.here = directory / "here"
        lines.furnish(self.here)
        os.mkfifo(self.here / "pipe")
        self.emulator = Emulator(directory)
        self.emulator.path.write_text(SCRIPT)

    def environ(self, chosen: Mapping[str, str]) -> dict[str, str]:
        named = {f"QMPMEM_{key}": chosen[key] for key in chosen}
        return self.emulator.settings(named | {"PWD": str(self.here)})

    def launch(self, words: Words, chosen: Mapping[str, str]) -> Tried:
        done = subprocess.run(
            [SHIM, *words],
            env=self.environ(chosen),
            cwd=self.here,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=patient(30),
            check=False,
        )
        assert (done.returncode, done.stdout) == (PLAYED, b""), done.stderr
        records = list(self.emulator.run.glob("*/record.json"))
        record = json.loads(records[0].read_bytes()) if records else None
        for guest in filter(Path.is_dir, self.emulator.run.glob("*")):  # the proof of Python stays
            shutil.rmtree(guest)
        return Tried(words, self.emulator.words(), done.stderr.decode(errors="replace"), record)


def try_lines(count: int, part: int) -> None:
    with short_directory() as directory:
        ground = Ground(directory)

        @seed(chance.draw() + part)
        @settings(
            max_examples=count,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(words=ANY_LINE, chosen=SETTINGS)
        def attempt(words: Words, chosen: Mapping[str, str]) -> None:
            ground.launch(words, chosen).check()

        attempt()


@pytest.mark.timeout(90)
def test_any_command_line_arrives_byte_for_byte() -> None:
    try_lines(COUNT, 0)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(SOAK_PARTS))
def test_ten_thousand_command_lines_arrive_byte_for_byte(part: int) -> None:
    try_lines(SOAK_COUNT, part + 1)


def filled(size: int) -> list[bytes]:
    """Make options whose words have so many bytes in all, with the NUL of each."""
    option, whole = b"-append", 128 * 1024 - 1  # bytes of a word (Linux: MAX_ARG_STRLEN)
    words: list[bytes] = []
    while size > len(option) + 2:
        size -= len(option) + 2
        words += [option, b"x" * min(size, whole)]
        size -= len(words[-1])
    return words


def is_startable(ground: Ground, size: int) -> bool:
    """Whether the emulator itself can be started with so much."""
    environ = ground.environ(QUIET)
    try:
        done = subprocess.run([ground.emulator.path, *filled(size)], env=environ, check=False)
    except OSError:
        return False
    return done.returncode == PLAYED


def longest(ground: Ground) -> int:
    """Find with how much the emulator can be started, and so the launcher."""
    low, high = 100_000, os.sysconf("SC_ARG_MAX")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_startable(ground, middle) else (low, middle)
    # The kernel counts the path of a script twice.
    return low - 2 * max(0, len(str(SHIM)) - len(str(ground.emulator.path)))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [LONG_COUNT, pytest.param(SOAK_LONG_COUNT, marks=SOAK)])
def test_what_just_fits_for_the_emulator_starts(count: int) -> None:
    """Python has some words more than the emulator, and so has what is added."""
    dice = random.Random(chance.draw())  # noqa: S311 - repeatable on purpose
    with short_directory() as directory:
        ground = Ground(directory)
        limit = longest(ground)
        for less in (0, 1, *(dice.randrange(6000) for _ in range(count - 2))):
            ground.launch(tuple(filled(limit - less)), QUIET).check()
