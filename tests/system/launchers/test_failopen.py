"""Whatever goes wrong on our side, the guest starts, with the arguments that were given."""

import gc
import importlib
import inspect
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, Literal, Self

import pytest

from launchers import kvm, kvm_emulator, kvm_group, kvm_launch, kvm_monitor, kvm_records
from tests.rig.launcher import LAUNCHERS, Emulator, listen, remember
from tests.rig.qemu import short_directory

WORDS: Final = ("-name", "we,,ird", "-m", "1G", "", "--S", "\udcff")
OURS: Final = {str(path) for path in LAUNCHERS.glob("kvm_*.py")}
for each in OURS:  # here: a module's own lines are executed once in a process
    importlib.import_module(f"launchers.{Path(each).stem}")
BOUNDARY: Final = {
    (kvm.__file__, function.__code__.co_name)
    for function in (kvm.become, kvm.restore_signals, kvm.say, kvm.explain)
}


Trace = Callable[[FrameType, str, object], Any]
Event = Literal["line", "call"]


CAPABILITIES: Final = f"""{kvm_emulator.FORMAT}
json yes
machine pc
virtio-balloon-pci deflate-on-oom free-page-reporting
end
"""


class Became(BaseException):
    """The process would be the emulator now."""


class Injected(BaseException):
    """What goes wrong: not even an Exception."""


class Harness:
    """Runs the launcher in this process, up to exec."""

    def __init__(self, directory: Path) -> None:
        self.emulator = Emulator(directory)
        self.environment = self.emulator.settings({"QMPMEM_CURRENT": "25%"})
        self.calls: list[tuple[str, list[str]]] = []

    def execute(self, path: str, words: list[str], _: Mapping[str, str]) -> None:
        self.calls.append((path, words))
        raise Became

    def request(self, *words: str, state: str = "tried") -> list[str]:
        return [state, sys.executable, str(self.emulator.path), "kvm", *words]

    def launch(self, *words: str, state: str = "tried") -> list[str]:
        """Launch, and return the arguments after argv[0] that exec got in the end."""
        self.calls.clear()
        with pytest.raises((Became, Injected)):
            kvm.become(self.request(*words, state=state), self.execute)
        path, arguments = self.calls[0]  # a real one would not return
        assert (path, arguments[0]) == (str(self.emulator.path), "kvm")
        return arguments[1:]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    with short_directory() as directory:
        made = Harness(directory)
        hold_cgroups(directory, monkeypatch)
        monkeypatch.setattr(kvm_launch, "environment_for", lambda _: dict(made.environment))
        monkeypatch.setattr(kvm, "restore_signals", lambda: None)  # pytest's own are at stake
        monkeypatch.setattr("sys.unraisablehook", lambda _: None)  # what is left half done
        yield made


def hold_cgroups(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have groups that are only directories: this process shall stay where it is."""
    root = directory / "tree"
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("0::/\n")
    mount = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    (root / "proc/self/mountinfo").write_text(mount)
    find = partial(kvm_group.find_places, root=str(root))
    monkeypatch.setattr(kvm_group, "find_places", find)
    monkeypatch.setattr(kvm_group, "_write", lambda *_: None)


class Tracer:
    """Raises once, when a line of ours is about to be executed for the first time.

    Or, for calls, when a function of ours has been called and is about to begin; its place is its
    first line.
    """

    def __init__(self, target: tuple[str, int] | None, what: Event = "line") -> None:
        self.target = target
        self.what = what
        self.seen: dict[tuple[str, int], None] = {}
        self.fired = False

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _call(self, frame: FrameType, event: str, _: object) -> "Trace | None":
        code = frame.f_code
        if not self._watches(code):
            return None
        if event == self.what:
            self._reach((code.co_filename, code.co_firstlineno))
        return self._line

    def _watches(self, code: CodeType) -> bool:
        return code.co_filename in OURS or (code.co_filename, code.co_name) in BOUNDARY

    def _line(self, frame: FrameType, event: str, _: object) -> "Trace":
        if event == self.what:
            self._reach((frame.f_code.co_filename, frame.f_lineno))
        return self._line

    def _reach(self, place: tuple[str, int]) -> None:
        self.seen.setdefault(place)
        if place == self.target and not self.fired:
            self.fired = True
            raise Injected(f"{self.what} {place[1]}")


def first_protected() -> int:
    """The outer `try` of the boundary; what stands before it is not protected."""
    lines, start = inspect.getsourcelines(kvm.become)
    return start + next(number for number, line in enumerate(lines) if line == "    try:\n")


def is_protected(place: tuple[str, int]) -> bool:
    """Whether a failure at this line must be caught.

    A `try` itself does nothing, so nothing can fail; CPython counts it to neither side.
    """
    file, number = place
    text = Path(file).read_text().splitlines()[number - 1]
    return file != kvm.__file__ or (number > first_protected() and text.strip() != "try:")


def known(harness: Harness) -> list[str]:
    """Everything works, and the emulator has been asked before."""
    harness.emulator.run.mkdir()
    harness.emulator.path.write_bytes(b"\x7fELF")
    remember(harness.emulator.run, harness.emulator.path, CAPABILITIES)
    return [*WORDS]


def unknown(harness: Harness) -> list[str]:
    """Everything works; the emulator is asked what it can do, and has a file to read."""
    config = harness.emulator.path.with_name("user.conf")
    config.write_text('[device "n"]\n  driver = "e1000"\n')
    return [*WORDS, "-readconfig", str(config)]


def name_taken(harness: Harness) -> list[str]:
    """A guest of the same name was killed."""
    known(harness)
    run = harness.emulator.run
    for name in ("a", "a-2"):
        (run / name).mkdir()
        socket = f"{run}/{name}/qmp.sock"
        os.close(listen(run / name))
        me = {"pid": os.getpid(), "start_time": 1, "uid": os.getuid()}
        record = {**me, "socket": socket, "origin": "launcher"}
        (run / name / "record.json").write_text(kvm_records.encode_record(record))
    return [*WORDS, "-name", "a"]


def without_a_name(harness: Harness) -> list[str]:
    """The guest is called after its disk."""
    known(harness)
    return ["-m", "1G", "-blockdev", '{"driver":"qcow2","file":{"filename":"/srv/web1.qcow2"}}']


def grouped(harness: Harness) -> list[str]:
    """The guest gets a cgroup of its own."""
    harness.environment["QMPMEM_CGROUP"] = "on"
    return known(harness)


def bad_setting(harness: Harness) -> list[str]:
    """A setting makes no sense."""
    harness.environment["QMPMEM_MODE"] = "nonsense"
    return list(WORDS)


def bad_run_directory(harness: Harness) -> list[str]:
    """Every user could write there."""
    harness.emulator.run.mkdir()
    harness.emulator.run.chmod(0o777)
    return list(WORDS)


def says_nothing(harness: Harness) -> list[str]:
    """An emulator that says nothing."""
    harness.emulator.path.write_text("#!/proc/nonexistent\n")
    return list(WORDS)


ALL: Final = ("kvm",)
ASKING: Final = ("kvm_emulator", "kvm_probe", "kvm_stamp")
"""Modules that only do something in `unknown`, where each launch takes 30 ms."""


NAMING: Final = ("kvm_name", "kvm_source")
"""Modules that only do something in `without_a_name`."""


GROUPING: Final = ("kvm_group",)
"""The module that only does something in `grouped`."""


RACE: Final = "except BrokenPipeError:"
"""Reached where an emulator ended before it was asked: not each time."""


def is_race(place: tuple[str, int]) -> bool:
    """Whether a line is reached in some launches only, with everything else the same."""
    lines = Path(place[0]).read_text().splitlines()[place[1] - 2 : place[1]]
    return any(RACE in line for line in lines)


SCENES: Final = (
    (known, ALL, 300, 60),
    (unknown, ASKING, 70, 10),
    (name_taken, ALL, 300, 60),
    (without_a_name, NAMING, 40, 10),
    (grouped, GROUPING, 40, 10),
    (bad_setting, ALL, 80, 20),
    (bad_run_directory, ALL, 100, 20),
    (says_nothing, ASKING, 30, 5),
)
"""Each with the least number of lines, and of calls, at which something can fail."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("scene", "modules", "what", "at_least"),
    [
        *(
            pytest.param(scene, modules, "call", calls, id=f"{scene.__name__}-call")
            for scene, modules, _, calls in SCENES
        ),
        *(
            pytest.param(
                *(scene, modules, "line", lines),
                id=f"{scene.__name__}-line",
                marks=pytest.mark.soak,
            )
            for scene, modules, lines, _ in SCENES
        ),
    ],
)
def test_a_failure_at_any_call_and_line(
    harness: Harness,
    scene: Callable[[Harness], list[str]],
    modules: tuple[str, ...],
    what: Event,
    at_least: int,
) -> None:
    """Row F78: the emulator is always started: as planned, or just as was asked for."""
    words = scene(harness)
    with Tracer(None, what) as tracer:
        planned = harness.launch(*words)
    assert (len(planned) == len(words) + 4) == (
        scene in (known, unknown, name_taken, without_a_name, grouped)
    )
    places = [
        place
        for place in tracer.seen
        if is_protected(place) and Path(place[0]).name.startswith(modules)
    ]
    assert len(places) > at_least
    unchanged = 0
    for place in places:
        clear(harness.emulator.run)
        scene(harness)
        before = descriptors()
        with Tracer(place, what) as tracer:
            started = harness.launch(*words)
        assert tracer.fired or is_race(place), place
        assert started in (words, planned), place
        unchanged += started == words
        left = descriptors() - before
        handed_on = list(filter(os.get_inheritable, left))  # to the emulator, by exec
        assert len(handed_on) <= 2, place  # where closing the first was what failed
        close(left)
    assert unchanged > at_least * 0.8
    gc.collect()


def test_each_line_of_the_launcher_was_tried(harness: Harness) -> None:
    """The scenes above reach every module."""
    seen = set[str]()
    for scene in (unknown, without_a_name, grouped):
        clear(harness.emulator.run)
        with Tracer(None) as tracer:
            harness.launch(*scene(harness))
        seen |= {name for name, _ in tracer.seen}
    assert seen == OURS | {kvm.__file__}


def test_the_tracer_would_notice_an_unprotected_line(harness: Harness) -> None:
    """What is injected before anything is protected does come out."""
    with Tracer((kvm.__file__, first_protected())), pytest.raises(Injected):
        kvm.become(harness.request(*WORDS), harness.execute)
    assert harness.calls == []


def descriptors() -> set[int]:
    """What is open in this process."""
    first = kvm_monitor.FIRST_DESCRIPTOR
    return set(filter(is_open, (*range(3, 64), *range(first, first + 64))))


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def close(left: set[int]) -> None:
    for descriptor in left:
        os.close(descriptor)


def clear(run: Path) -> None:
    """Take everything back, so that each launch does all there is to do."""
    shutil.rmtree(run, ignore_errors=True)
