"""KSM for real: what merges, what does not, and that nothing of ours stays.

The kernel has one KSM: its lock is held for all of this file, so that guests of others are not in
the figures, and two equal guests do for several tests. Each test begins with all as after boot.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmpmem.errors import ConfigError, KernelError
from qmpmem.guests import inventory
from qmpmem.ksm import ledger, presets
from qmpmem.ksm.apply import KsmWriter
from qmpmem.ksm.presets import Preset
from qmpmem.units import MIB, PAGE, Bytes
from qmpmem.wire.kernel import host
from qmpmem.wire.kernel import ksm as files
from tests.rig import chance, foreign_qemu, ksm
from tests.rig.command import PROGRAM, Ran, called
from tests.rig.equalmemory import holding
from tests.rig.guests import RunningGuest, boot
from tests.rig.ksm import Machine
from tests.rig.patience import patient
from tests.rig.qemu import short_directory, until
from tests.rig.users import AS_ORDINARY

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.host,
    pytest.mark.timeout(1200),  # of which nearly all is waiting for others to let KSM go
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may change KSM"),
]

KVM: Final = [str(Path(__file__).resolve().parents[3] / "launchers/kvm")]
FAST: Final = ("advisor_mode=none", "pages_to_scan=20000", "sleep_millisecs=10")
HELD: Final = 48
"""MiB of equal memory in each guest."""
MUCH: Final = 256 * MIB
"""Takes long enough to unmerge to be caught half way."""


class Pair(NamedTuple):
    """Two guests that hold the same; `place` is where they are registered."""

    place: Path
    guests: Mapping[str, RunningGuest]


@pytest.fixture(scope="module")
def held() -> Iterator[Machine]:
    """Have the host's KSM; put back as it was found."""
    with ksm.held() as found:
        yield found


@pytest.fixture
def machine(held: Machine) -> Machine:
    """KSM as after boot."""
    held.reset()
    return held


@pytest.fixture
def place() -> Iterator[Path]:
    """Make a place for guests and for the ledger."""
    with short_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def both(held: Machine) -> Iterator[Pair]:
    assert held.before
    with short_directory() as place, guests(place, {"a": PLAIN, "b": PLAIN}) as found:
        yield Pair(place, found)


@pytest.fixture
def pair(both: Pair) -> Pair:
    """Have two equal guests, and no ledger."""
    (both.place / "ksm/ledger.json").unlink(missing_ok=True)
    fill(both.guests, "same")
    return both


def call(place: Path, *words: str) -> Ran:
    """Run `qmpmem ksm` with a ledger of its own."""
    own = {"QMPMEM_KSM_DIR": str(place / "ksm")}
    return called("ksm", *words, run=place / "guests", environ=own)


def do(place: Path, *words: str) -> str:
    ran = call(place, *words)
    assert ran.code == 0, ran.err
    return ran.out


def refuse(place: Path, code: int, *words: str) -> str:
    """Expect an error: its code, one line, no data."""
    ran = call(place, *words)
    assert (ran.code, ran.out) == (code, ""), ran
    assert ran.err.count("\n") == 1
    return ran.err


def status(place: Path) -> dict[str, Any]:
    seen: dict[str, Any] = json.loads(do(place, "status", "--json"))
    return seen


def of_guest(seen: dict[str, Any], guest: str) -> dict[str, Any]:
    return next(each for each in seen["guests"] if each["id"] == guest)


def knobs(machine: Machine) -> dict[str, str]:
    """What is in the files that can be written, but for what the kernel's advisor writes."""
    found = {name: machine.get(name) for name in machine.before}
    if found.get("advisor_mode", "none") != "none":
        del found["pages_to_scan"]
    return found


class Start(NamedTuple):
    """How a guest is started."""

    environ: Mapping[str, str] = {}
    extra: tuple[str, ...] = ()


PLAIN: Final = Start()


@contextmanager
def guests(place: Path, wanted: Mapping[str, Start]) -> Iterator[dict[str, RunningGuest]]:
    """Boot guests through the launcher, all at once."""

    def start(name: str) -> RunningGuest:
        words = ("-name", name, *wanted[name].extra)
        environ = {"QMPMEM_RUN_DIR": str(place / "guests"), **wanted[name].environ}
        return stack.enter_context(boot(KVM, memory="128M", extra=words, environ=environ))

    with ExitStack() as stack, ThreadPoolExecutor(len(wanted)) as pool:
        yield dict(zip(wanted, pool.map(start, wanted), strict=True))


def fill(found: Mapping[str, RunningGuest], kind: str) -> None:
    for guest in found.values():
        guest.check(f"eat stop; eat {kind} {HELD}")


def scan(place: Path, machine: Machine, times: int = 3) -> None:
    """Let ksmd look at everything so many times."""
    assert "run: 0 → 1" in do(place, "on") or machine.number("run") == 1
    do(place, "tune", *FAST)
    goal = machine.number("full_scans") + times
    until(lambda: machine.number("full_scans") >= goal, seconds=60, what="scans")


def test_equal_guests_merge_and_cost_less_and_a_writer_splits_pages(
    pair: Pair, machine: Machine
) -> None:
    before, place = knobs(machine), pair.place
    first = status(place)
    assert first["verdict"]["word"] == "off"
    assert of_guest(first, "a")["mergeable"] is True
    assert of_guest(first, "a")["merged"] == 0
    scan(place, machine, 4)
    second = status(place)
    assert second["saved"] > HELD * MIB * 0.8
    assert second["profit"] > HELD * MIB * 0.8
    assert second["verdict"]["word"] == "good sharing"
    assert second["owner"] == "qmpmem"
    for guest in ("a", "b"):
        assert of_guest(second, guest)["merged"] > HELD * MIB * 0.8
        fell = of_guest(first, guest)["proportional"] - of_guest(second, guest)["proportional"]
        assert fell > HELD * MIB * 0.4
    shown = do(place, "status")
    assert "good sharing" in shown
    assert "sharing : shared" in shown
    # A guest that writes to what is merged gets pages of its own again. How many are left is
    # counted when they are scanned, so that goes on.
    copies, sharing = host.counters().cow_ksm, machine.number("pages_sharing")
    pair.guests["a"].check(f"eat stop; eat random {HELD}")
    until(lambda: machine.number("pages_sharing") < sharing * 0.9, seconds=30, what="split")
    assert copies is not None
    assert (host.counters().cow_ksm or 0) > copies + 1000
    do(place, "restore")
    assert knobs(machine) == before


def test_neither_random_memory_nor_guests_that_stay_out_merge(
    pair: Pair, place: Path, machine: Machine
) -> None:
    shared = (
        *("-object", "memory-backend-memfd,id=m,size=128M,share=on"),
        *("-machine", "memory-backend=m"),
    )
    reasons = {
        "fixed": "static mode",
        "own": None,
        "shared": "shared memory",
        "shy": "mem-merge=off",
    }
    wanted = {
        "fixed": Start(environ={"QMPMEM_MODE": "static"}),
        "own": PLAIN,
        "shared": Start(extra=shared),
        "shy": Start(environ={"QMPMEM_KSM": "off"}),
    }
    with guests(place, wanted) as found:
        for name, guest in found.items():
            fill({name: guest}, "random" if name == "own" else "same")
        scan(place, machine, 4)
        seen, same = status(place), of_guest(status(pair.place), "a")
    assert {each["id"]: each["reason"] for each in seen["guests"]} == reasons
    for out in ("shy", "fixed", "shared"):
        assert of_guest(seen, out)["mergeable"] is False
        # Its memory stays out; the firmware beside it may be private though the memory is shared.
        assert of_guest(seen, out)["merged"] < (MIB if out == "shared" else 1), out
    # What all guests' kernels have in common merges, and not what this one was filled with.
    assert of_guest(seen, "own")["merged"] < same["merged"] - HELD * MIB * 0.8


@contextmanager
def paused_in(place: Path, domain: str) -> Iterator[None]:
    """Start a guest of a domain without an operating system, through the launcher."""
    run = place / "guests"
    with foreign_qemu.started(
        *("-name", domain),
        wait_for=run / domain / "qmp.sock",
        env=os.environ | {"QMPMEM_RUN_DIR": str(run), "QMPMEM_DOMAIN": domain},
        executable=KVM[0],
    ):
        until(lambda: inventory.take(run).guests, what="its record is there")
        yield


def test_guests_of_two_domains_do_not_merge_unless_told(place: Path, machine: Machine) -> None:
    before = knobs(machine)
    with paused_in(place, "red"), paused_in(place, "blue"):
        said = refuse(place, 2, "on")
        assert "red | blue" in said or "blue | red" in said
        assert "leaks" in said
        assert knobs(machine) == before
        assert "run: 0 → 1" in do(place, "on", "--across-domains")
        assert "different domains may merge" in call(place, "status").err
        do(place, "restore")
    assert knobs(machine) == before


@pytest.mark.parametrize("preset", ["quiet", "balanced", "eager"])
def test_a_preset_is_read_back_and_put_back(place: Path, machine: Machine, preset: str) -> None:
    before = knobs(machine)
    would = do(place, "on", "--preset", preset, "--dry-run").replace("would set ", "")
    assert knobs(machine) == before
    done = do(place, "on", "--preset", preset)
    assert done == would
    now = knobs(machine)
    for line in done.splitlines():
        name, _, change = line.partition(": ")
        assert now[name] == change.partition(" → ")[2]
    do(place, "tune", "sleep_millisecs=77", "smart_scan=0")
    do(place, "preset", "eager")
    do(place, "off")
    do(place, "restore")
    assert knobs(machine) == before
    assert do(place, "restore") == "nothing to change\n"


def test_the_kernels_own_no_takes_all_back(place: Path, machine: Machine) -> None:
    """Between our look and our write another program switches the advisor on: EINVAL, for real."""
    before = knobs(machine)

    def write(name: str, value: str) -> None:
        if name == "pages_to_scan":
            files.write("advisor_mode", "scan-time")
        files.write(name, value)

    wanted = {"sleep_millisecs": "55", "pages_to_scan": "777", "run": "1"}
    with pytest.raises(KernelError, match="pages_to_scan: writing 777 failed: Invalid argument"):
        KsmWriter(place / "ksm", writer=write).apply(wanted)
    files.write("advisor_mode", "none")
    assert knobs(machine) == before


def test_what_the_kernel_would_refuse_is_refused_before_anything_is_written(
    place: Path, machine: Machine
) -> None:
    do(place, "tune", "advisor_mode=scan-time")
    before = knobs(machine)
    assert "advisor" in refuse(place, 2, "tune", "pages_to_scan=5", "sleep_millisecs=5")
    assert "expected 2 to" in refuse(place, 2, "tune", "max_page_sharing=1", "sleep_millisecs=5")
    assert knobs(machine) == before


def test_max_page_sharing_is_refused_while_pages_are_merged_and_unmerging_helps(
    pair: Pair, machine: Machine
) -> None:
    place, at_first = pair.place, knobs(machine)
    scan(place, machine)
    until(lambda: machine.number("pages_sharing") > 1000, seconds=30, what="merged")
    before = knobs(machine)
    assert "merged" in refuse(place, 2, "tune", "max_page_sharing=100", "smart_scan=0")
    assert knobs(machine) == before
    assert "would unmerge" in do(place, "unmerge", "--dry-run")
    assert machine.number("pages_sharing") > 1000
    assert do(place, "unmerge").startswith("unmerged ")
    assert machine.number("pages_shared") == 0
    assert machine.get("run") == "2"
    assert "100" in do(place, "tune", "max_page_sharing=100")
    do(place, "restore")
    assert knobs(machine) == at_first


@pytest.mark.parametrize(
    ("number", "to_child", "code", "says"),
    chance.some(
        [
            (signal.SIGKILL, True, 4, "half way; nothing is changed"),
            (signal.SIGINT, False, 130, ""),
            (signal.SIGTERM, False, 143, ""),
        ]
    ),
)
def test_unmerging_that_is_cut_off_goes_on_merging(  # noqa: PLR0913 - two fixtures and a row
    place: Path, machine: Machine, *, number: int, to_child: bool, code: int, says: str
) -> None:
    """Half way the child dies, as by the OOM killer, or the command is told to end."""
    at_first = knobs(machine)
    with holding(MUCH):
        do(place, "on")
        do(place, "tune", *FAST, "smart_scan=0")
        pages = MUCH // PAGE * 9 // 10
        until(lambda: machine.number("pages_sharing") > pages, seconds=60, what="merged")
        before = knobs(machine)
        with unmerging(place) as command:
            until(lambda: machine.number("pages_sharing") < pages, what="unmerging")
            [child] = children(command.pid)
            first_to_go = Path(f"/proc/{child}/oom_score_adj").read_text()
            os.kill(child if to_child else command.pid, number)
            _, said = command.communicate(timeout=patient(30))
        assert first_to_go == "1000\n"
        assert command.returncode == code
        assert says in said
        assert said.count("\n") == (1 if says else 0)
        assert not Path(f"/proc/{child}").exists()
        assert knobs(machine) == before
        do(place, "unmerge")
        assert machine.number("pages_shared") == 0
        do(place, "restore")
    assert knobs(machine) == at_first


@contextmanager
def unmerging(place: Path) -> Iterator[subprocess.Popen[str]]:
    environ = os.environ | {"QMPMEM_KSM_DIR": str(place / "ksm")}
    with subprocess.Popen(
        [PROGRAM, "ksm", "unmerge"],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        try:
            yield command
        finally:
            command.kill()


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


CHANGES: Final = st.one_of(
    st.sampled_from([{"run": "0"}, {"run": "1"}, {"run": "2"}]),
    st.sampled_from(list(presets.PRESETS.values())),
    st.fixed_dictionaries(
        {},
        optional={
            "sleep_millisecs": st.sampled_from(["0", "33"]),
            "pages_to_scan": st.sampled_from(["1", "5000"]),
            "advisor_mode": st.sampled_from(["none", "scan-time"]),
            "advisor_max_cpu": st.sampled_from(["1", "100"]),
            "smart_scan": st.sampled_from(["0", "1"]),
            "max_page_sharing": st.sampled_from(["2", "300"]),
            "use_zero_pages": st.sampled_from(["0", "1"]),
        },
    ),
)
"""Anything that `on`, `off`, `unmerge`, `preset` and `tune` may do."""


@pytest.mark.parametrize("examples", [12, pytest.param(100, marks=pytest.mark.soak)])
def test_whatever_was_done_is_put_back_to_the_value(machine: Machine, examples: int) -> None:
    started = st.fixed_dictionaries(
        {
            "sleep_millisecs": st.sampled_from(["20", "21"]),
            "pages_to_scan": st.sampled_from(["100", "101"]),
            "advisor_mode": st.sampled_from(["none", "scan-time"]),
            "run": st.sampled_from(["0", "1"]),
        }
    )

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(started, st.lists(CHANGES, max_size=6))
    def check(first: dict[str, str], changes: list[dict[str, str] | Preset]) -> None:
        machine.reset()
        machine.write({name: first[name] for name in (*first.keys() - {*ksm.LAST}, *ksm.LAST)})
        before = knobs(machine)
        with short_directory() as where:
            writer = KsmWriter(where)
            for change in changes:
                with suppress(ConfigError):  # such as pages_to_scan under the advisor
                    writer.apply(as_settings(change, writer))
            done = writer.restore()
            assert done.left == {}
            assert not (where / "ledger.json").exists()
        assert knobs(machine) == before

    check()


def as_settings(change: dict[str, str] | Preset, writer: KsmWriter) -> dict[str, str]:
    if isinstance(change, Preset):
        return presets.settings(change, writer.state(), mergeable=Bytes(64 * MIB))
    return change


def test_a_rival_is_not_fought(place: Path, machine: Machine) -> None:
    """Another program rewrites a knob after each of our changes: after two times we leave it."""
    ours: list[str] = []
    for number in range(5):
        ran = call(place, "tune", f"pages_to_scan={1000 + number}")
        if ran.code == 0:
            ours.append(ran.out)
        else:
            assert ran.code == 4
            assert "another program changed it 2 times after us" in ran.err
        machine.write({"pages_to_scan": 60 + number})
    assert len(ours) == 2
    assert machine.get("pages_to_scan") == "64"
    assert "pages_to_scan is 64: another program changed it" in call(place, "restore").err
    assert machine.get("pages_to_scan") == "64"


def test_ksmtuned_is_named(place: Path, machine: Machine) -> None:
    assert machine.get("run") == "0"
    with subprocess.Popen(
        ["sh", "-c", "printf ksmtuned >/proc/$$/comm; echo; read forever"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as rival:
        assert rival.stdout is not None
        rival.stdout.readline()
        assert f"ksmtuned (pid {rival.pid}) steers KSM as well" in call(place, "status").err
        rival.kill()


def test_two_at_a_time_are_one_too_many(place: Path, machine: Machine) -> None:
    do(place, "on")
    with ledger.locked(place / "ksm"):
        assert "another qmpmem" in refuse(place, 4, "off")
    assert machine.get("run") == "1"


def test_an_ordinary_user_sees_and_may_not_change(machine: Machine, shared_program: Path) -> None:
    before = knobs(machine)
    as_ordinary = [*AS_ORDINARY, str(shared_program), "ksm"]
    with short_directory() as directory:
        directory.chmod(0o1777)
        environ = os.environ | {
            "QMPMEM_RUN_DIR": str(directory / "guests"),
            "QMPMEM_KSM_DIR": str(directory / "ksm"),
        }
        seen = subprocess.run(
            [*as_ordinary, "status"], env=environ, capture_output=True, text=True, check=False
        )
        assert (seen.returncode, seen.stderr) == (0, "")
        assert "pages:" in seen.stdout
        done = subprocess.run(
            [*as_ordinary, "on"], env=environ, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (4, "")
        assert "Permission denied" in done.stderr
        assert "chgrp qmpmem" in done.stderr
    assert knobs(machine) == before


def test_the_saving_is_watched_until_it_settles(pair: Pair, machine: Machine) -> None:
    place = pair.place
    do(place, "on")
    do(place, "tune", *FAST)
    lines = do(place, "status", "--watch", "0.2", "--until-settled", "--timeout", "60")
    assert lines.splitlines()[-1].endswith("good sharing")
    do(place, "off")
    assert do(place, "status", "--until-settled").splitlines()[-1].endswith("off")
    assert machine.get("run") == "0"
