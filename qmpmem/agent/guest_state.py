"""What the agent knows of one guest, and what each answer and each event makes of it.

Theory of operation:
    A watcher holds one `GuestState`. It hands each answer of the guest to the function that takes
    it in, which returns the next state. Rounds read `GuestState.reading` at any time, also between
    two answers. So each function leaves a reading that a round can decide on.

    A report tells what a guest uses now, and QEMU does not say when it came, but by the guest's own
    clock. So the age of a report counts from when it was first seen to differ from the one before
    (`changed`). The first one of a session has no age: it may be of any time.

    Only a pause makes reports of before and after worth comparing (`qmpmem.agent.epochs`). The last
    one before it is kept until the first one after it (`before_pause`).

Rules of this file:
    Pure. Times are seconds of the agent's steady clock, except `wall`: seconds since 1970.
"""

from typing import Final

from qmpmem.agent import epochs
from qmpmem.errors import GuestError, GuestUnreachable
from qmpmem.model import obstacles, sanitise
from qmpmem.model.guest import BalloonDevice, GuestDevices, GuestStats
from qmpmem.model.observation import Beginning, GuestReading
from qmpmem.model.sizes import Sizes, by_report
from qmpmem.records import Record, replace
from qmpmem.units import Bytes
from qmpmem.wire import errors
from qmpmem.wire.replies import RawStats

NOT_SEEN: Final = "the agent has not seen it yet"


class Launched(Record, frozen=True):
    """What its launcher wrote of a guest, or who adopted it, and what decides here."""

    mode: str = "balloon"
    managed: bool = True
    human: bool = False
    """There is only a human monitor."""
    no_balloon: str | None = None
    """Why the launcher added no balloon, where one could be expected."""
    unmovable: str | None = None
    """Why any balloon frees nothing of its memory."""


class GuestState(Record, frozen=True):
    """What is known of one guest. Unless it says otherwise, None is not known."""

    reading: GuestReading
    """For the rounds; without what is only known when a round asks, such as its age."""
    launched: Launched = Launched()
    is_new: bool = True
    """Whether nothing came of the first attempt to look at it yet."""
    problem: str | None = NOT_SEEN
    """One line for people: why something is missing. None: nothing is."""
    run_state: str = ""
    """As QEMU last told it, whatever became of the session since."""

    machine: str | None = None
    accelerator: str | None = None
    devices: GuestDevices = GuestDevices()
    device: BalloonDevice | None = None
    """None: it has no balloon, or none was found yet."""
    polled_before: int | None = None
    """Seconds from one report to the next as QEMU asked for them before the agent did; 0: never."""
    polled: int = 0
    """Seconds from one report to the next for which QEMU asks now; 0: it asks for none."""

    sizes: Sizes | None = None
    counted: Bytes | None = None
    """What QEMU counts of its memory; None also where that cannot be true."""
    is_odd: bool = False
    """Whether its claim of that cannot be true."""

    raw: RawStats | None = None
    """The last report as it came; None: none came in this session."""
    changed: float | None = None
    """When a report was first seen to differ from the one before. None: the last one is void."""
    reported: Bytes | None = None
    """What the guest had when it made that report."""
    before_pause: GuestStats | None = None
    """The last report before a pause, while there is none after it; also the first of a session."""


def session_begun(known: GuestState, device: BalloonDevice | None) -> GuestState:
    """Take in that there is a session: what the one before told of the balloon is forgotten."""
    return replace(device_lost(known), device=device)


def session_lost(known: GuestState, error: GuestError) -> GuestState:
    """Take in that there is no session: nothing that its driver said holds any more."""
    reason = error.reason if isinstance(error, GuestUnreachable) else "protocol"
    reading = replace(
        known.reading,
        state=errors.state(reason),
        actual=None,
        stats=GuestStats(),
        reads=None,
        reads_waited=None,
        implausible=False,
        refused=error.message,
        exempt=None if known.is_new else known.reading.exempt,
    )
    return replace(
        known,
        reading=reading,
        problem=errors.problem(error),
        changed=None,
        is_odd=False,
        is_new=False,
    )


def unanswered(known: GuestState, error: GuestUnreachable) -> GuestState:
    """Take in that it does not answer now; the session goes on."""
    reading = replace(known.reading, state=errors.state(error.reason))
    return replace(known, reading=reading, problem=error.message)


def event_heard(known: GuestState, name: str) -> GuestState:
    """Take in an event; most only tell that it is time to look."""
    if name in epochs.RESETS:
        return begun_anew(known, "reset")
    if name in epochs.RESUMES and known.changed is not None:  # else it is of the life before
        return replace(known, changed=None, before_pause=known.reading.stats)
    return known


def begun_anew(known: GuestState, how: Beginning) -> GuestState:
    """Count another epoch; what was reported before it says nothing."""
    reading = replace(known.reading, epoch=known.reading.epoch + 1, began=how)
    return replace(known, reading=reading, changed=None, before_pause=None)


def run_state_read(known: GuestState, state: str) -> GuestState:
    """Take in QEMU's run state; `answering` shows it to the rounds."""
    if epochs.arrives(known.run_state, state):
        known = begun_anew(known, epochs.beginning(known.run_state))
    return replace(known, run_state=state)


def answering(known: GuestState) -> GuestState:
    """Take in that the guest answers: it is in its run state again.

    Not before its size is known: a round in between would take the guest for one that lies.
    """
    return replace(known, reading=replace(known.reading, state=known.run_state))


def looked_at(known: GuestState) -> GuestState:
    """Take in that a look is complete, after which it is known what there is not."""
    return _judged(replace(known, is_new=False)) if known.is_new else known


def given_read(known: GuestState, sizes: Sizes | None) -> GuestState:
    """Take in which memory it was given."""
    return _measured(replace(known, sizes=sizes))


def devices_read(known: GuestState, devices: GuestDevices) -> GuestState:
    """Take in which other devices it has; `device_read`, which is next, judges by them."""
    return replace(known, devices=devices)


def device_read(known: GuestState, device: BalloonDevice | None) -> GuestState:
    """Take in which balloon it has."""
    return _judged(replace(known, device=device))


def device_lost(known: GuestState) -> GuestState:
    """Take in that the balloon was unplugged, or that there never was one.

    All that came of it is forgotten; the next has its own settings.
    """
    reading = replace(known.reading, stats=GuestStats())
    return replace(known, reading=reading, device=None, polled_before=None, raw=None, changed=None)


def machine_read(known: GuestState, machine: str | None, *, kvm: bool | None) -> GuestState:
    """Take in which machine QEMU emulates, and whether by KVM."""
    accelerator = None if kvm is None else "kvm" if kvm else "tcg"
    return replace(known, machine=machine, accelerator=accelerator)


def size_read(known: GuestState, claimed: object, lacks: str | None) -> GuestState:
    """Take in what it has.

    Args:
        known: the guest.
        claimed: what its driver says; None without a balloon.
        lacks: what the session cannot tell.
    """
    if claimed is None:
        known = device_lost(known)
    most = None if known.sizes is None else known.sizes.ballooned
    counted = sanitise.balloon_actual(claimed, most)
    known = replace(
        known,
        counted=counted,
        is_odd=claimed is not None and counted is None,
        problem=sanitise.balloon_problem(claimed, counted, known.run_state) or lacks,
    )
    return _checked(_judged(_measured(known)))


def report_read(known: GuestState, raw: RawStats, now: float, wall: float) -> GuestState:
    """Take in the guest's report, which may be the one that is known."""
    is_first = known.raw is None
    if raw != known.raw:
        # The first is as old as may be: it was filled when the driver was loaded.
        changed, reported = (None, None) if is_first else (now, known.reading.actual)
        known = replace(known, raw=raw, changed=changed, reported=reported)
    known = _measured(_told(known, raw, wall))
    if is_first:
        known = replace(known, before_pause=known.reading.stats)
    return _compared(known)


def reads_read(known: GuestState, size: Bytes | None, waited: int | None) -> GuestState:
    """Take in what it has read from its disks."""
    return replace(known, reading=replace(known.reading, reads=size, reads_waited=waited))


def polling_read(known: GuestState, seconds: int) -> GuestState:
    """Take in how often QEMU asks for reports before the agent had a word in it."""
    return replace(known, polled_before=seconds, polled=seconds)


def polling_set(known: GuestState, seconds: int) -> GuestState:
    """Take in how often QEMU was told to ask."""
    return replace(known, polled=seconds)


def order_told(known: GuestState, refused: str | None) -> GuestState:
    """Take in what came of an order."""
    return replace(known, reading=replace(known.reading, refused=refused))


def started_with(known: GuestState, size: Bytes) -> GuestState:
    """Take in which size a rule has it start with."""
    return replace(known, reading=replace(known.reading, current=size))


def polling_to_set(known: GuestState, wanted: int, *, again: bool) -> tuple[int, ...]:
    """Return the seconds to set QEMU's polling to, one after the other.

    Args:
        known: the guest.
        wanted: seconds from one report to the next.
        again: the guest is to report at once. To the same interval, nothing happens, and to
            another, only when that is over; from none, the guest is asked at once (QEMU:
            balloon_stats_set_poll_interval).
    """
    if again:
        return 0, wanted
    return () if known.polled == wanted else (wanted,)


def polling_to_put_back(known: GuestState) -> int | None:
    """Return the seconds that QEMU's polling had; None: it has them."""
    return None if known.polled_before == known.polled else known.polled_before


def _measured(known: GuestState) -> GuestState:
    """Work out the guest's sizes from what it was given, and from its last report."""
    if known.sizes is None:
        return replace(known, reading=replace(known.reading, maximum=None, actual=known.counted))
    sizes = by_report(known.sizes, known.reading.stats, known.counted, known.device)
    reading = replace(
        known.reading,
        maximum=sizes.maximum,
        actual=sizes.seen(known.counted),
        beyond=sizes.beyond or None,
        deflates=None if known.device is None else known.device.deflate_on_oom,
    )
    return replace(known, sizes=sizes, reading=reading)


def _judged(known: GuestState) -> GuestState:
    """Return what is known, with whether the guest's memory can be moved."""
    reading = replace(known.reading, exempt=_exempt(known), bare=_is_bare(known))
    return replace(known, reading=reading)


def _exempt(known: GuestState) -> str | None:
    launched = known.launched
    if known.is_new:
        return NOT_SEEN
    if not launched.managed:
        return f"started in mode {launched.mode}"
    if launched.human:
        return errors.NO_STATISTICS
    reason = launched.unmovable or known.devices.obstacle
    if known.device is None:
        return obstacles.no_device(launched.no_balloon or reason)
    return None if reason is None else obstacles.frees_nothing(reason)


def _is_bare(known: GuestState) -> bool:
    """Tell whether the guest has no balloon, and is known to have nothing that pins its memory."""
    launched = known.launched
    if known.is_new or not launched.managed or launched.human or known.device is not None:
        return False
    return launched.unmovable is None and known.devices.obstacle is None


def _checked(known: GuestState) -> GuestState:
    """Return what is known, with whether the guest's claims can be true together."""
    implausible = known.is_odd or not known.reading.stats.consistent
    return replace(known, reading=replace(known.reading, implausible=implausible))


def _told(known: GuestState, raw: RawStats, wall: float) -> GuestState:
    """Believe of a report what can be true."""
    most = None if known.sizes is None else known.sizes.most
    told = sanitise.guest_stats(raw.stats, raw.last_update, maximum=most, now=wall)
    stats = GuestStats() if told is None else replace(told, age=None)
    return _checked(replace(known, reading=replace(known.reading, stats=stats)))


def _compared(known: GuestState) -> GuestState:
    """Look at the first report after a pause: it may be of another life of the guest."""
    stats = known.reading.stats
    if not stats.is_report:  # cleared: no report at all (QEMU 10.0, after a reset)
        return replace(known, changed=None)
    if known.changed is None or known.before_pause is None:
        return known
    if epochs.went_back(known.before_pause, stats):
        return replace(begun_anew(known, "arrived"), changed=known.changed)
    return replace(known, before_pause=None)
