"""All or nothing, and back to the value: the hand against a model of mm/ksm.c.

Rules of this file:
    A rival is a program that writes to the same files without asking us. A crash is a process that
    is gone: the ledger and the kernel are as they were at that moment, and nothing was taken back.
"""

import errno
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpmem.errors import ConfigError, KernelError
from qmpmem.ksm import ledger, presets, rules
from qmpmem.ksm.apply import KsmWriter
from qmpmem.records import replace
from qmpmem.units import GIB, Bytes
from qmpmem.wire.kernel import ksm
from tests.rig import odd
from tests.rig.ksmmodel import KNOBS, NEW, OLD, Kernel, Trip
from tests.rig.memory import memory_directory

AS_OTHERS_LEAVE_IT: Final[Mapping[str, tuple[str, ...]]] = {
    "run": ("0", "1", "2"),
    "pages_to_scan": ("100", "0", "777"),
    "sleep_millisecs": ("20", "0", "4294967295"),
    "merge_across_nodes": ("1", "0"),
    "max_page_sharing": ("256", "2"),
    "use_zero_pages": ("0", "1"),
    "smart_scan": ("1", "0"),
    "advisor_mode": ("none", "scan-time"),
    "advisor_max_cpu": ("70", "900"),
    "advisor_min_pages_to_scan": ("500", "0", "99999"),
    "advisor_target_scan_time": ("200", "18446744073709551615"),
}
"""Values that the kernel takes, and some that we would never set."""

FAILURES: Final = {
    "EINVAL": OSError(errno.EINVAL, "Invalid argument"),
    "EBUSY": OSError(errno.EBUSY, "Device or resource busy"),
    "EACCES": OSError(errno.EACCES, "Permission denied"),
    "ENOENT": OSError(errno.ENOENT, "No such file or directory"),
    "Ctrl-C": KeyboardInterrupt(),
}


Command = dict[str, str] | str
"""Settings, or the name of a preset."""


class Gone(BaseException):
    """The process is no more."""


@dataclass(frozen=True, slots=True)
class World:
    """A kernel, and us beside it."""

    kernel: Kernel
    where: Path

    @property
    def writer(self) -> KsmWriter:
        assert self.kernel.root is not None
        return KsmWriter(self.where, self.kernel.root, self.kernel.write)

    @property
    def book(self) -> bytes | None:
        path = self.where / "ledger.json"
        return path.read_bytes() if path.exists() else None

    def photograph(self) -> tuple[dict[str, str], bytes | None]:
        return self.kernel.knobs(), self.book


def make_world(root: Path, values: Mapping[str, str]) -> World:
    return World(Kernel(root, values, kind={}), root / "ledger")


@contextmanager
def world_of(values: Mapping[str, str]) -> Generator[World]:
    with memory_directory() as root:
        yield make_world(root, values)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, NEW)


def test_a_full_disk_keeps_nothing_from_being_put_back(world: World) -> None:
    before = world.kernel.knobs()
    world.writer.apply({"run": "1", "pages_to_scan": "777"})
    odd.directory(world.where / f".ledger.json.{os.getpid()}")  # so the ledger cannot be written
    with pytest.raises(KernelError):
        world.writer.apply({"pages_to_scan": "300"})
    writer = world.writer
    assert len(writer.restore().writes) == 2
    assert world.kernel.knobs() == before
    assert "ledger.json" in writer.problems[0]
    assert world.book is None


@st.composite
def kernels(draw: st.DrawFn) -> dict[str, str]:
    values = dict(draw(st.sampled_from([OLD, NEW])))
    for name, choices in AS_OTHERS_LEAVE_IT.items():
        if name in values:
            values[name] = draw(st.sampled_from(choices))
    return values


WISHES: Final[Mapping[str, st.SearchStrategy[str]]] = {
    "run": st.sampled_from(["0", "1", "2"]),
    "pages_to_scan": st.sampled_from(["100", "300", "777"]),
    "sleep_millisecs": st.sampled_from(["20", "50", "0"]),
    "merge_across_nodes": st.sampled_from(["0", "1"]),
    "max_page_sharing": st.sampled_from(["256", "16"]),
    "smart_scan": st.sampled_from(["0", "1"]),
    "advisor_mode": st.sampled_from(["none", "scan-time"]),
    "advisor_max_cpu": st.sampled_from(["70", "20"]),
    "advisor_min_pages_to_scan": st.sampled_from(["500", "9"]),
}
CHANGES: Final = st.fixed_dictionaries({}, optional=dict(WISHES))
COMMANDS: Final = st.lists(
    st.one_of(CHANGES, CHANGES, st.sampled_from(sorted(presets.PRESETS))), min_size=1, max_size=5
)


def settings(world: World, command: Command) -> dict[str, str]:
    if isinstance(command, dict):
        return {name: value for name, value in command.items() if name in world.kernel.values}
    return presets.settings(presets.PRESETS[command], world.writer.state(), Bytes(GIB))


def change(world: World, commands: list[Command]) -> None:
    """Do what can be done."""
    for command in commands:
        with suppress(ConfigError):
            world.writer.apply(settings(world, command))


@given(values=kernels(), commands=COMMANDS)
def test_whatever_was_done_restore_brings_back_to_the_value(
    values: dict[str, str], commands: list[Command]
) -> None:
    with world_of(values) as world:
        before = world.kernel.knobs()
        change(world, commands)
        left = world.writer.restore().left
        assert world.photograph() == (before, None)
        assert left == {}
        assert world.writer.restore().writes == ()


@given(values=kernels(), commands=COMMANDS)
def test_what_was_applied_is_there_and_known_as_ours(
    values: dict[str, str], commands: list[Command]
) -> None:
    with world_of(values) as world:
        for command in commands:
            wanted = settings(world, command)
            try:
                planned = world.writer.plan(wanted)
            except ConfigError:
                continue
            assert world.writer.apply(wanted) == planned
            assert {name: world.kernel.values[name] for name in wanted} == wanted
            book = ledger.load(world.where, world.kernel.root or Path())
            assert ledger.foreign(book, world.kernel.knobs()) == {}
            assert {write.name for write in planned} <= ledger.own(book, world.kernel.knobs())


@given(data=st.data(), values=kernels(), commands=COMMANDS, wanted=CHANGES)
def test_a_failure_at_any_write_leaves_all_as_it_was(
    data: st.DataObject,
    values: dict[str, str],
    commands: list[Command],
    wanted: dict[str, str],
) -> None:
    """Row F68."""
    with world_of(values) as world:
        change(world, commands)
        try:
            planned = world.writer.plan(settings(world, wanted))
        except ConfigError:
            return
        if not planned:
            return
        before = world.photograph()
        at = data.draw(st.integers(1, len(planned)))
        failure = FAILURES[data.draw(st.sampled_from(sorted(FAILURES)))]
        after = data.draw(st.booleans(), label="the value is written nevertheless")
        world.kernel.trip = fails_at(world, at, failure, after=after)
        with pytest.raises((KernelError, KeyboardInterrupt)):
            world.writer.apply({write.name: write.after for write in planned})
        assert world.photograph() == before


def fails_at(world: World, at: int, failure: BaseException, *, after: bool) -> Trip:
    world.kernel.written.clear()

    def trip(number: int, name: str, value: str) -> None:
        if number == at:
            if after:
                world.kernel.store(name, value)
            raise failure

    return trip


@given(data=st.data(), values=kernels(), commands=COMMANDS)
def test_a_failure_while_restoring_leaves_all_as_it_was(
    data: st.DataObject, values: dict[str, str], commands: list[Command]
) -> None:
    with world_of(values) as world:
        start = world.kernel.knobs()
        change(world, commands)
        before = world.photograph()
        failure = FAILURES[data.draw(st.sampled_from(sorted(FAILURES)))]
        at = data.draw(st.integers(1, 6))
        world.kernel.trip = fails_at(world, at, failure, after=data.draw(st.booleans()))
        try:
            world.writer.restore()
        except (KernelError, KeyboardInterrupt):
            assert world.photograph() == before
            world.kernel.trip = None
            world.writer.restore()
        assert world.photograph() == (start, None)


@given(data=st.data(), values=kernels(), commands=COMMANDS, wanted=CHANGES)
def test_after_a_crash_at_any_write_the_next_restore_brings_all_back(
    data: st.DataObject,
    values: dict[str, str],
    commands: list[Command],
    wanted: dict[str, str],
) -> None:
    with world_of(values) as world:
        before = world.kernel.knobs()
        change(world, commands)
        restoring = data.draw(st.booleans(), label="crash while restoring")
        crash(world, data.draw(st.integers(1, 5)), None if restoring else wanted)
        assert world.writer.restore().left == {}
        assert world.photograph() == (before, None)


def crash(world: World, at: int, wanted: dict[str, str] | None) -> None:
    """Be gone right before a write, or right after the last."""
    moment: list[tuple[dict[str, str], bytes | None]] = []
    world.kernel.written.clear()

    def trip(number: int, _name: str, _value: str) -> None:
        if number == at:
            moment.append((dict(world.kernel.values), world.book))
        if number >= at:
            raise Gone

    world.kernel.trip = trip
    with suppress(Gone, ConfigError):
        if wanted is None:
            world.writer.restore()
        else:
            world.writer.apply(settings(world, wanted))
    world.kernel.trip = None
    for values, book in moment:
        world.kernel.put(values)
        if book is None:
            (world.where / "ledger.json").unlink(missing_ok=True)
        else:
            (world.where / "ledger.json").write_bytes(book)


MINE: Final = {"sleep_millisecs": "31", "max_page_sharing": "17", "use_zero_pages": "1"}
"""In the order in which they are written."""


@given(
    values=kernels(),
    commands=COMMANDS,
    theirs=st.sampled_from(["sleep_millisecs", "max_page_sharing", "pages_volatile"]),
    at=st.integers(1, 3),
    fails=st.booleans(),
)
def test_what_a_rival_wrote_after_we_did_stays(
    values: dict[str, str], commands: list[Command], theirs: str, at: int, *, fails: bool
) -> None:
    with world_of({**values, "use_zero_pages": "0"}) as world:
        change(world, commands)
        before = world.photograph()
        world.kernel.written.clear()

        def trip(number: int, _name: str, _value: str) -> None:
            if number == at:
                world.kernel.put({theirs: "99"})
            if fails and number == len(MINE):
                raise OSError(errno.EINVAL, "Invalid argument")

        world.kernel.trip = trip
        intrudes = theirs in list(MINE)[: at - 1]
        with pytest.raises(KernelError) if fails or intrudes else nullcontext():
            world.writer.apply(MINE)
        if fails or intrudes:
            left = {theirs: "99"} if intrudes else {}
            assert world.photograph() == ({**before[0], **left}, before[1])
        else:
            assert world.kernel.knobs() == {**before[0], **MINE}


@given(
    values=kernels(),
    commands=COMMANDS,
    theirs=st.sampled_from(["sleep_millisecs", "max_page_sharing", "run"]),
)
def test_what_a_rival_changed_since_is_left_by_restore(
    values: dict[str, str], commands: list[Command], theirs: str
) -> None:
    with world_of(values) as world:
        start = world.kernel.knobs()
        change(world, commands)
        other = "99" if theirs != "run" else str((int(world.kernel.values["run"]) + 1) % 3)
        world.kernel.put({theirs: other})
        done = world.writer.restore()
        assert world.photograph() == ({**start, theirs: other}, None)
        assert set(done.left) <= {theirs}


# One guard each.


def test_everything_is_judged_before_anything_is_written(world: World) -> None:
    with pytest.raises(ConfigError):
        world.writer.apply({"sleep_millisecs": "50", "smart_scan": "7"})
    assert world.kernel.written == []
    assert world.book is None


@pytest.mark.parametrize("only_agents", [False, True])
def test_a_ledger_is_judged_before_any_of_it_is_put_back(
    world: World, *, only_agents: bool
) -> None:
    """Row F88: by `ksm restore`, by a unit's ExecStopPost=, and by an agent that starts."""
    world.writer.apply({"run": "1", "sleep_millisecs": "50"})
    assert world.kernel.root is not None
    found = ledger.load(world.where, world.kernel.root)
    before = {**found.before, "sleep_millisecs": "-1"}
    ledger.save(world.where, replace(found, before=before, agent=(1 << 22, 1)))
    seen, world.kernel.written[:] = world.photograph(), []
    with pytest.raises(KernelError, match="sleep_millisecs='-1': no kernel shows that"):
        world.writer.restore(only_agents=only_agents)
    assert world.kernel.written == []
    assert world.photograph() == seen


def test_the_ledger_is_saved_before_the_first_write(world: World) -> None:
    def trip(_number: int, name: str, _value: str) -> None:
        assert world.book is not None
        assert f'"{name}":"20"'.encode() in world.book

    world.kernel.trip = trip
    world.writer.apply({"sleep_millisecs": "50"})
    assert world.kernel.values["sleep_millisecs"] == "50"


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", odd.EVERY)
def test_a_ledger_that_another_user_could_have_written_is_set_aside_and_said(
    world: World, make: odd.Make
) -> None:
    (world.where.parent / "other").mkdir()
    for act in (lambda writer: writer.apply({"sleep_millisecs": "50"}), KsmWriter.restore):
        world.where.mkdir(exist_ok=True)
        (world.where / "ledger.json").unlink(missing_ok=True)
        make(world.where / "ledger.json")
        writer = world.writer
        act(writer)
        [problem] = writer.problems
        assert problem.startswith(f"{world.where}/ledger.json: ")
        assert problem.endswith(": what it says is not done")
        (world.where / "ledger.json.refused").rename(world.where.parent / "other" / "it")
        shutil.rmtree(world.where.parent / "other")
        (world.where.parent / "other").mkdir()
    assert world.kernel.values["sleep_millisecs"] == "50"


def test_merging_is_not_switched_on_again_across_domains(world: World) -> None:
    def refuse() -> None:
        raise ConfigError("guests of different domains would merge")

    world.kernel.store("run", "1")
    world.writer.apply({"run": "0", "sleep_millisecs": "50"})
    before = world.photograph()
    with pytest.raises(ConfigError, match="different domains"):
        world.writer.restore(refuse)
    assert world.photograph() == before
    world.writer.restore()
    assert world.kernel.values["run"] == "1"
    world.writer.apply({"run": "0"})
    world.kernel.store("run", "1")
    world.writer.restore(refuse)  # it is on already


def test_what_an_agent_at_work_made_of_ksm_is_no_other_ones(world: World) -> None:
    assert world.kernel.root is not None
    own = KsmWriter(world.where, world.kernel.root, world.kernel.write, by_agent=True)
    own.apply({"sleep_millisecs": "50"})
    assert world.writer.restore(only_agents=True).writes == ()
    assert [write.name for write in own.restore(only_agents=True).writes] == ["sleep_millisecs"]


def test_a_ledger_that_is_not_there_is_not_looked_for_with_a_lock(world: World) -> None:
    assert world.writer.restore(only_agents=True).writes == ()
    assert not world.where.exists()


def test_a_ledger_that_cannot_be_written_stops_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a full file system: any user's write(2) fails, root's too.
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fchmod", full)
    world.where.mkdir()
    (world.where / "lock").touch()
    with pytest.raises(KernelError, match="No space left on device"):
        world.writer.apply({"sleep_millisecs": "50"})
    assert world.kernel.written == []
    assert sorted(path.name for path in world.where.iterdir()) == ["lock"]


def test_what_reads_back_otherwise_is_not_done(world: World) -> None:
    def trip(_number: int, name: str, _value: str) -> None:
        if name == "run":  # the last: another program changes the first meanwhile
            world.kernel.store("sleep_millisecs", "77")

    world.kernel.trip = trip
    with pytest.raises(KernelError) as caught:
        world.writer.apply({"sleep_millisecs": "50", "smart_scan": "0", "run": "1"})
    assert "sleep_millisecs: wrote 50, and it reads 77" in caught.value.message
    assert caught.value.message.endswith("nothing is changed")
    assert "ksmtuned" in str(caught.value.hint)
    assert world.kernel.values["sleep_millisecs"] == "77"
    assert world.kernel.values["smart_scan"] == "1"
    assert world.kernel.values["run"] == "0"


def test_a_rival_after_the_last_write_is_not_overwritten(world: World) -> None:
    def write(name: str, value: str) -> None:
        world.kernel.write(name, value)
        world.kernel.store(name, "77")

    writer = KsmWriter(world.where, world.kernel.root or Path(), write)
    with pytest.raises(KernelError, match="reads 77"):
        writer.apply({"sleep_millisecs": "50"})
    assert world.kernel.values["sleep_millisecs"] == "77"
    assert world.book is None


def test_a_file_that_vanished_after_it_was_written_is_not_done(world: World) -> None:
    def write(name: str, value: str) -> None:
        world.kernel.write(name, value)
        if name == "smart_scan":
            (ksm_directory(world) / name).unlink()

    writer = KsmWriter(world.where, world.kernel.root or Path(), write)
    with pytest.raises(KernelError, match="it reads nothing"):
        writer.apply({"sleep_millisecs": "50", "smart_scan": "0"})
    assert world.kernel.values["sleep_millisecs"] == "20"


def ksm_directory(world: World) -> Path:
    assert world.kernel.root is not None
    return world.kernel.root / ksm.DIRECTORY


def test_what_cannot_be_put_back_is_named_and_remembered(world: World) -> None:
    def trip(number: int, _name: str, _value: str) -> None:
        if number > 1:
            raise OSError(errno.EACCES, "Permission denied")

    world.kernel.trip = trip
    with pytest.raises(KernelError) as caught:
        world.writer.apply({"sleep_millisecs": "50", "smart_scan": "0"})
    assert caught.value.message.endswith("these are changed: sleep_millisecs")
    assert world.kernel.values["sleep_millisecs"] == "50"
    world.kernel.trip = None
    world.writer.restore()
    assert world.kernel.values["sleep_millisecs"] == "20"


def test_what_cannot_be_read_any_more_is_named_too(world: World) -> None:
    def write(name: str, value: str) -> None:
        world.kernel.write(name, value)
        if name == "smart_scan":
            (ksm_directory(world) / "run").write_text("garbage")

    writer = KsmWriter(world.where, world.kernel.root or Path(), write)
    with pytest.raises(KernelError, match="these are changed: sleep_millisecs smart_scan"):
        writer.apply({"sleep_millisecs": "50", "smart_scan": "0"})
    assert world.book is not None


def test_the_first_time_a_rival_changes_a_knob_we_may_change_it_again(world: World) -> None:
    world.writer.apply({"sleep_millisecs": "50"})
    world.kernel.store("sleep_millisecs", "60")
    world.writer.apply({"sleep_millisecs": "50"})
    world.kernel.store("sleep_millisecs", "60")
    world.kernel.written.clear()
    for _ in range(2):
        with pytest.raises(
            KernelError, match="sleep_millisecs: another program changed it 2 times"
        ):
            world.writer.apply({"sleep_millisecs": "50", "smart_scan": "0"})
    assert world.kernel.written == []
    world.writer.apply({"smart_scan": "0"})  # another knob is still ours to change
    assert world.writer.restore().left == {}
    assert world.kernel.values["sleep_millisecs"] == "60"


def test_a_failed_change_is_no_change_of_a_rival(world: World) -> None:
    world.writer.apply({"sleep_millisecs": "50"})
    world.kernel.store("sleep_millisecs", "60")
    world.kernel.trip = fails_at(world, 1, FAILURES["EACCES"], after=False)
    with pytest.raises(KernelError):
        world.writer.apply({"sleep_millisecs": "50"})
    world.writer.apply({"sleep_millisecs": "50"})
    assert world.kernel.values["sleep_millisecs"] == "50"


def test_what_a_rival_made_of_it_is_what_we_put_back_later(world: World) -> None:
    world.writer.apply({"sleep_millisecs": "50"})
    world.kernel.store("sleep_millisecs", "60")
    world.writer.apply({"sleep_millisecs": "70"})
    world.writer.restore()
    assert world.kernel.values["sleep_millisecs"] == "60"


def test_what_is_left_to_a_rival_is_told(world: World) -> None:
    world.writer.apply({"sleep_millisecs": "50", "smart_scan": "0"})
    world.kernel.store("sleep_millisecs", "60")
    done = world.writer.restore()
    assert done.left == {"sleep_millisecs": "60"}
    assert [write.name for write in done.writes] == ["smart_scan"]


def test_the_speed_that_a_rival_set_after_us_is_not_ours_to_restore(world: World) -> None:
    world.kernel.store("pages_to_scan", "777")
    world.writer.apply({"advisor_mode": "scan-time"})
    world.writer.apply({"advisor_mode": "none"})
    world.kernel.store("pages_to_scan", "350")
    assert world.writer.restore().left == {"pages_to_scan": "350"}
    assert world.kernel.values["pages_to_scan"] == "350"


def test_our_own_former_speed_is_not_taken_for_anothers(world: World) -> None:
    world.kernel.store("advisor_mode", "scan-time")
    world.writer.apply({"advisor_mode": "none", "pages_to_scan": "300"})
    world.writer.apply({"pages_to_scan": "400"})
    world.writer.restore()
    assert world.kernel.values["advisor_mode"] == "scan-time"


def test_the_speed_is_not_restored_to_the_advisor(world: World) -> None:
    world.kernel.store("advisor_mode", "scan-time")
    world.writer.apply({"advisor_mode": "none", "pages_to_scan": "300"})
    world.kernel.store("pages_to_scan", "350")
    world.writer.apply({"pages_to_scan": "400"})
    assert [write.name for write in world.writer.restore().writes] == ["advisor_mode"]
    assert world.kernel.values["advisor_mode"] == "scan-time"


@pytest.mark.parametrize("wanted", [None, {"advisor_mode": "none", "pages_to_scan": "9"}])
def test_a_crash_between_the_mode_and_the_speed_loses_no_speed(
    world: World, wanted: dict[str, str] | None
) -> None:
    world.kernel.store("pages_to_scan", "777")
    world.writer.apply({"advisor_mode": "scan-time"})
    crash(world, 2, wanted)
    assert world.kernel.values["pages_to_scan"] == "100"
    assert world.writer.restore().left == {}
    assert world.kernel.values["pages_to_scan"] == "777"


def test_two_of_us_do_not_change_it_at_once(world: World) -> None:
    with ledger.locked(world.where):
        for act in (lambda: world.writer.apply({"run": "1"}), world.writer.restore):
            with pytest.raises(KernelError, match="by another qmpmem right now"):
                act()
    assert world.kernel.written == []
    world.writer.apply({"run": "1"})


def test_when_merging_began_is_noted_with_it(world: World) -> None:
    world.kernel.put({"full_scans": "41"})
    world.writer.apply({"sleep_millisecs": "50"})
    assert ledger.load(world.where, Path("/proc/nonexistent")).scans == 0
    world.writer.apply({"run": "1"})
    assert ledger.load(world.where, Path("/proc/nonexistent")).scans == 41


def test_what_is_so_already_needs_no_ledger(world: World) -> None:
    assert world.writer.apply({"run": "0", "sleep_millisecs": "20"}) == ()
    assert world.book is None


def test_to_plan_needs_no_rights_and_leaves_no_trace(world: World) -> None:
    [write] = world.writer.plan({"run": "1"})
    assert (write.name, write.before, write.after) == ("run", "0", "1")
    assert not world.where.exists()
    assert world.kernel.written == []


def test_restoring_what_cannot_be_written_now_says_so_and_does_nothing(world: World) -> None:
    world.writer.apply({"max_page_sharing": "16", "sleep_millisecs": "50"})
    world.kernel.put({"pages_shared": "3"})
    before = world.photograph()
    with pytest.raises(ConfigError, match=r"max_page_sharing.*qmpmem ksm unmerge"):
        world.writer.restore()
    assert world.photograph() == before


def test_without_merging_in_the_kernel_there_is_one_clear_line(tmp_path: Path) -> None:
    """Row F68."""
    with pytest.raises(KernelError, match="this kernel cannot merge pages"):
        KsmWriter(tmp_path, tmp_path).plan({"run": "1"})


def test_every_knob_of_the_model_is_one_of_ours() -> None:
    assert set(KNOBS) == {rules.RUN, *rules.KNOBS}
