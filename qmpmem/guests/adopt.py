"""Adopting a QEMU that another program started as a guest, and forgetting it again.

Theory of operation:
    An adopted guest is a record in the run directory, and nothing else: its process is not touched,
    and its socket stays where it is. Making the directory claims the id; a later failure removes
    the directory again.

    A monitor serves one client. The kernel is asked first which process is attached. So no client
    is waited for, and no place in the queue is taken that another client may want.
"""

import asyncio
import os
import shlex
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

from qmpmem.errors import ConfigError, GuestRefused, GuestUnreachable
from qmpmem.files import asynchronous
from qmpmem.guests import inventory, managers, qemu_processes, read_guest, rundir
from qmpmem.guests.inventory import LiveGuest
from qmpmem.guests.qemu_processes import Facts, View
from qmpmem.guests.rundir import GuestRecord, Unreadable
from qmpmem.model import obstacles
from qmpmem.model.guest import BalloonDevice, GuestView
from qmpmem.model.names import LONGEST_NAME, pick, safe_id
from qmpmem.records import Record, replace
from qmpmem.wire import addresses, commands, kernel, loopback, sock_diag, unix_socket
from qmpmem.wire.channel import Channel, connect_human
from qmpmem.wire.errors import state, unreachable
from qmpmem.wire.hotplug import plug_balloon
from qmpmem.wire.limits import HUMAN
from qmpmem.wire.qmp import Deadlines, connect

_OTHER_ID: Final = "choose another name; `qmpmem list` shows those in use"
_LOCKED: Final = "its memory is locked (-overcommit mem-lock=on): a balloon would free nothing"


_LOOK: Final = 3.0
"""Seconds within which an agent has read a guest that it does not hold, also on a loaded host."""

Work = Callable[[], Awaitable["Adopted"]]


_UNPROVED: Final = (
    "TCP names no process, and the one that listens is not this user's to see: that it is a QEMU, "
    "and which, is not proved"
)


class Adopted(Record, frozen=True):
    """The result of an adoption."""

    guest: GuestView
    plugged: bool
    """Whether a balloon was plugged in."""
    note: str | None = None
    """What its user should know, in one line."""
    known: bool = False
    """Whether it was a guest already: adopted before, or started by the launcher."""


class Forgotten(Record, frozen=True):
    """A record that was removed."""

    id: str
    alive: bool
    """Whether the guest itself runs on."""


class _Wanted(Record, frozen=True):
    """What is to be adopted, and how."""

    id: str
    name: str
    path: str
    add_balloon: bool
    deadlines: Deadlines | None
    owner: int | None = None


async def adopt(  # noqa: PLR0913 - the command's options
    run: Path,
    name: str,
    socket: str,
    *,
    add_balloon: bool = False,
    force: bool = False,
    owner: int | None = None,
    deadlines: Deadlines | None = None,
) -> Adopted:
    """Register a running QEMU as a guest, by one of its QMP sockets.

    A guest that is registered under this id and socket already only gets what it lacks.

    Args:
        run: the run directory, made if it is missing.
        name: what to call the guest; its id is made of that.
        socket: the path of a QMP socket.
        add_balloon: whether to plug a balloon in if there is none.
        force: whether to adopt a guest that another program manages as well.
        owner: the user whose process must listen there, if not root's; None: any user.
        deadlines: how long QEMU may take to answer.

    Raises:
        ConfigError: the name is empty, its id is taken, or the guest has another one already.
        GuestRefused: another program manages the guest, and it is not registered; or no balloon can
            be plugged in, and the guest is registered without one.
        GuestUnreachable: there is no session: the guest is gone, in use or hung, or it is not QMP.
            Nothing was registered.
    """
    if not name:
        raise ConfigError("an empty name for a guest", hint="give it a name to call it by")
    title = os.fsencode(name).decode(errors="backslashreplace")[:LONGEST_NAME]
    name = safe_id(name)
    path = _absolute(socket)
    known = await asyncio.to_thread(_find_registered, run, name, path)
    if known is not None and not add_balloon:
        guest = await asyncio.to_thread(_held_by_us, known)
        if guest is not None:
            return Adopted(guest=guest, plugged=False, known=True)
    facts = await asyncio.to_thread(_examine, run, name, path, known)
    manager = managers.by_sockets([path]) or (facts.manager if facts else None)
    if manager is not None and known is None and not force:
        raise _managed_by(name, manager)

    wanted = _Wanted(
        id=name,
        name=title,
        path=path,
        add_balloon=add_balloon,
        deadlines=deadlines,
        owner=owner,
    )

    async def work() -> Adopted:
        if known is not None:
            return await _complete(run, known, facts, wanted)
        return await _register(run, facts, wanted)

    return await _when_free(name, path, known, work)


async def _open(stack: AsyncExitStack, wanted: _Wanted) -> Channel:
    """Open a session with what turns out to be there: QMP, or else a human monitor."""
    try:
        qmp = connect(wanted.path, guest=wanted.id, deadlines=wanted.deadlines)
        return await stack.enter_async_context(qmp)
    except GuestUnreachable as error:
        if HUMAN not in error.message:
            raise
    human = connect_human(wanted.path, guest=wanted.id, deadlines=wanted.deadlines)
    return await stack.enter_async_context(human)


def _check_owner(session: Channel, wanted: _Wanted) -> None:
    if wanted.owner is not None and session.peer.uid not in (0, wanted.owner):
        text = f"{wanted.path}: uid {session.peer.uid} listens there, expected {wanted.owner}"
        raise unreachable(wanted.id, "wrong-peer", text)


async def _register(run: Path, facts: Facts | None, wanted: _Wanted) -> Adopted:
    claim = _Claim(run, wanted.id)
    try:
        await asyncio.to_thread(claim.take)
        async with AsyncExitStack() as stack:
            session = await _open(stack, wanted)
            _check_owner(session, wanted)
            found = await asyncio.to_thread(_found, session, wanted.path, facts)
            measured = await read_guest.known(read_guest.measure(session, found))
            judged = replace(found.record, unmovable=None if measured is None else measured[1])
            fitting = await _fit(session, judged, add_balloon=wanted.add_balloon)
            record = replace(judged, balloon=fitting.added, note=fitting.note, name=wanted.name)
            guest = await _snapshot(
                session, LiveGuest(record=record, pid=found.pid), fitting.device
            )
        record = await asyncio.to_thread(_with_listener, record)
        await asynchronous.call(partial(claim.write, record))
    except OSError as error:
        await asyncio.to_thread(claim.drop)
        raise rundir.refused(run, error) from error
    except BaseException:
        await asyncio.to_thread(claim.drop)
        raise
    finally:
        claim.close()
    if fitting.refusal is not None:
        raise fitting.refusal
    note = _note(guest, facts, plugged=fitting.plugged)
    return Adopted(guest=guest, plugged=fitting.plugged, note=note)


def forget(run: Path, name: str) -> Forgotten:
    """Remove the record of an adopted guest, or of one that is gone. The QEMU is not touched.

    Args:
        run: the run directory.
        name: the guest's id, or its unique name.

    Raises:
        ConfigError: there is no such guest, the launcher started it and it lives, or nothing may be
            removed here now.
    """
    # Under the lock no launcher claims the id of a guest that is gone after we looked.
    with rundir.removing(run) as alone:
        forgotten = _forgettable(run, name)
        if alone:
            rundir.remove_guest(run, forgotten.id)
        left = (run / forgotten.id).exists()
    if left:
        raise ConfigError(
            f"{run / forgotten.id}: could not be removed",
            hint="run as the owner of the run directory; then try again: a launcher may have been "
            "clearing away",
        )
    return forgotten


class _Claim:
    """A guest's directory, ours from `take` until `drop`, or until the record is in it."""

    def __init__(self, run: Path, guest: str) -> None:
        self._run, self._guest = run, guest
        self._made = False
        self._directory: int | None = None
        # A task that is interrupted while a thread takes the claim drops it only after that.
        self._lock = threading.Lock()

    def take(self) -> None:
        """Make the directory, and the run directory if need be.

        Raises:
            ConfigError: the id is taken.
            OSError: the directory cannot be made.
        """
        with self._lock:
            self._made = rundir.make_run_directory(self._run)
            self._directory = rundir.claim(self._run, self._guest)
            if self._directory is None:
                raise _taken(self._guest)

    def write(self, record: GuestRecord) -> None:
        """Write the record.

        Raises:
            ConfigError: a launcher has claimed the id, because this took longer than launchers do.
            OSError: the record cannot be written.
        """
        with self._lock:
            if self._directory is None:
                raise _taken(self._guest)
            try:
                rundir.fill(self._directory, record)
            except FileNotFoundError as error:
                raise _taken(self._guest) from error

    def drop(self) -> None:
        """Remove the directory if it is ours, and an empty run directory that we made."""
        with self._lock:
            if self._directory is not None:
                rundir.give_up(self._run, self._guest, self._directory)
            if self._made:
                with suppress(OSError):
                    self._run.rmdir()

    def close(self) -> None:
        """Close the directory, which stays."""
        with self._lock:
            if self._directory is not None:
                os.close(self._directory)
                self._directory = None


def _taken(guest: str) -> ConfigError:
    return ConfigError(f"guest {guest}: the id is taken", hint=_OTHER_ID)


def _forgettable(run: Path, name: str) -> Forgotten:
    """Find the record that is meant, and check that it may be removed.

    Raises:
        ConfigError: as `forget`.
    """
    taken = inventory.take(run)
    records = {found.record.id: found.record for found in taken.guests}
    alive = _identify(name, records)
    if alive is not None and records[alive].origin == "launcher":
        raise ConfigError(
            f"guest {alive}: started by the launcher, and alive",
            hint="its record goes when it ends",
        )
    stale = {record.id: record for record in taken.stale}
    identity = alive or _identify(name, stale) or _damaged(run, name, taken.unreadable)
    if identity is None:
        raise ConfigError(f"guest {name}: no such guest", hint="`qmpmem list` shows all")
    return Forgotten(id=identity, alive=alive is not None)


def _absolute(path: str) -> str:
    if loopback.is_tcp(path):
        return loopback.normal(path)
    if sock_diag.is_abstract(path):
        return path
    return os.path.abspath(path)  # noqa: PTH100 - as the user means it; links are not followed


def _find_registered(run: Path, name: str, path: str) -> LiveGuest | None:
    """Find the guest of this id if it is the one behind this socket; refuse if it is another."""
    taken = inventory.take(run)
    inventory.sweep(run, [record for record in taken.stale if record.id == name])
    for found in taken.guests:
        if _is_same_file(found.record.socket, path):
            if found.record.id == name:
                return found
            raise _registered(path, found)
    if any(found.record.id == name for found in taken.guests):
        raise _taken(name)
    return None


def _held_by_us(known: LiveGuest) -> GuestView | None:
    """Return a guest that our own agent holds, which needs no adoption; None: it holds none."""
    record = known.record
    try:
        held = addresses.holder(record.socket)
    except OSError:
        return None
    if held is None or not sock_diag.is_agent(held):
        return None
    why = sock_diag.taken(record.socket, record.id, held)
    return replace(inventory.unseen(known), state=state(why.reason), problem=why.message)


def _examine(run: Path, name: str, path: str, known: LiveGuest | None) -> Facts | None:
    """Look at the process that listens on a socket, without connecting.

    Returns:
        What is known of it; None where this user may not see that.

    Raises:
        ConfigError: it is a guest under another id already.
    """
    try:
        inode = addresses.listener(path)
    except OSError:
        return None  # connecting will tell what is wrong
    pid = None if inode is None else kernel.owner_of_socket(inode)
    facts = None if pid is None else _look(pid)
    for found in () if known else inventory.take(run).guests:
        if facts is not None and found.pid == facts.pid and found.record.id != name:
            raise _registered(path, found)
    return facts


async def _when_free(name: str, path: str, known: LiveGuest | None, work: Work) -> Adopted:
    """Do something with a socket to which no client is attached.

    An agent may just be reading a guest that it does not hold: that is waited for.

    Raises:
        GuestUnreachable: a client is attached; the error names its process.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + (0 if known is None else _LOOK)
    while True:
        try:
            await asyncio.to_thread(_expect_free, name, path, known)
            return await work()
        except GuestUnreachable as error:
            if error.reason != "taken" or clock() >= deadline:
                raise
        await asyncio.sleep(_LOOK / 20)


def _expect_free(name: str, path: str, known: LiveGuest | None) -> None:
    try:
        held = addresses.holder(path)
    except OSError:
        return  # connecting will tell what is wrong
    if held is not None:
        hint = _way_round(known.record) if known is not None and sock_diag.is_agent(held) else None
        raise sock_diag.taken(path, name, held, hint=hint)


def _way_round(record: GuestRecord) -> str:
    if record.origin == "adopted":
        return f"the agent: `qmpmem forget {record.id}` has it let go, then this once more"
    return "the agent: stop it for so long as this takes"


def _look(pid: int) -> Facts:
    view = View()
    seen = qemu_processes.each_within(
        qemu_processes.PATIENCE, lambda each: qemu_processes.look(each, view), [pid]
    )
    return seen.get(pid, Facts(pid=pid))


async def _complete(run: Path, known: LiveGuest, facts: Facts | None, wanted: _Wanted) -> Adopted:
    """Plug the balloon in that a guest lacks which is registered already."""
    async with read_guest.open_session(known, wanted.deadlines) as session:
        fitting = await _fit(session, known.record, add_balloon=wanted.add_balloon)
        if fitting.refusal is not None:
            raise fitting.refusal
        if fitting.plugged:
            record = replace(known.record, balloon=fitting.added)
            if not await asynchronous.call(
                partial(rundir.rewrite_record, run, known.record, record)
            ):
                raise _taken(known.record.id)
        guest = await _snapshot(session, known, fitting.device)
    note = _note(guest, facts, plugged=fitting.plugged)
    return Adopted(guest=guest, plugged=fitting.plugged, note=note, known=True)


def _with_listener(record: GuestRecord) -> GuestRecord:
    """Return a record with the process that listens, where that is not the guest itself.

    QEMU calls listen() once more on a socket that it inherited (QEMU: util/qemu-sockets.c,
    socket_listen). Until then the kernel names the process before it, so it is asked again.
    """
    if record.listener is None or loopback.is_tcp(record.socket):
        return record
    with unix_socket.open_socket(record.socket, record.id) as connection:
        listener = unix_socket.peer_of(connection).pid
    return replace(record, listener=None if listener == record.pid else listener)


def _found(session: Channel, path: str, facts: Facts | None) -> LiveGuest:
    """Return the process behind a session as a guest."""
    listener = session.peer.pid
    pid = listener if facts is None else facts.pid
    process = kernel.process(pid)
    user = kernel.owner(pid) if process else None  # not the one that listened, with -runas
    locked = facts is not None and facts.line is not None and facts.line.locked
    record = GuestRecord(
        version=rundir.RECORD_VERSION,
        id=session.guest,
        name=session.guest,
        pid=pid,
        # No process has this start time: the guest is then known by its socket alone.
        start_time=process.start_time if process else 0,
        socket=path,
        uid=session.peer.uid if user is None else user,
        created=time.time(),
        origin="adopted",
        human=session.lacks is not None,
        mode="static" if locked else "balloon",
        managed=not locked,
        listener=None if listener == pid else listener,
        emulator=kernel.executable(pid),
    )
    return LiveGuest(record=record, pid=pid if process else None)


class _Fitting(Record, frozen=True):
    """Which balloon a guest has, and the result of plugging one in."""

    device: BalloonDevice | None
    plugged: bool = False
    refusal: GuestRefused | None = None
    """Why none was plugged in, though that was asked for."""

    @property
    def note(self) -> str | None:
        """Return what its user should know of it."""
        return obstacles.NO_DEFLATE if obstacles.lacks_deflate(self.device) else None

    @property
    def added(self) -> str | None:
        """Return the id of the device that was plugged in."""
        if self.device is None or not self.plugged:
            return None
        return self.device.path.rpartition("/")[2]


async def _fit(session: Channel, record: GuestRecord, *, add_balloon: bool) -> _Fitting:
    device = await commands.find_balloon(session)
    if device is not None or not add_balloon:
        return _Fitting(device=device)
    if not record.managed:
        text = f"guest {record.id}: adopted without a balloon: {_LOCKED}"
        return _Fitting(device=None, refusal=GuestRefused(text, error_class="NotManaged"))
    if record.unmovable is not None:
        why = obstacles.frees_nothing(record.unmovable)
        text = f"guest {record.id}: adopted without a balloon: {why}"
        todo = obstacles.advice(record.unmovable)
        return _Fitting(device=None, refusal=GuestRefused(text, error_class="Unmovable", hint=todo))
    try:
        return _Fitting(device=await plug_balloon(session), plugged=True)
    except GuestRefused as error:
        why = error.message.removeprefix(f"guest {record.id}: ")
        text = f"guest {record.id}: adopted without a balloon: {why}"
        refusal = GuestRefused(text, error_class=error.error_class, hint=error.hint)
        return _Fitting(device=None, refusal=refusal)


async def _snapshot(session: Channel, found: LiveGuest, device: BalloonDevice | None) -> GuestView:
    base = await asyncio.to_thread(inventory.unseen, found)
    return replace(await read_guest.look(session, base, detail=False), balloon=device)


def _note(guest: GuestView, facts: Facts | None, *, plugged: bool) -> str | None:
    if facts is not None and facts.line is not None and facts.line.locked:
        return _LOCKED
    if guest.unmovable is not None:
        return obstacles.frees_nothing(guest.unmovable)
    if guest.pid is None and loopback.is_tcp(guest.socket):
        return _UNPROVED
    if guest.balloon is None:
        again = shlex.join(["qmpmem", "adopt", guest.id, guest.socket, "--add-balloon"])
        return f"no balloon device: its memory can be seen, not changed; for one, `{again}`"
    if plugged:
        return None
    lacks = obstacles.NO_DEFLATE if obstacles.lacks_deflate(guest.balloon) else None
    return obstacles.joined("it has a balloon device already", lacks)


def _identify(name: str, records: dict[str, GuestRecord]) -> str | None:
    return pick(name, {record.id: record.name for record in records.values()})


def _damaged(run: Path, name: str, unreadable: tuple[Unreadable, ...]) -> str | None:
    """Return the name of a directory without a good record, if no process listens in it."""
    if str(run / name / "record.json") not in {entry.path for entry in unreadable}:
        return None
    try:
        listens = sock_diag.listener(str(run / name / "qmp.sock")) is not None
    except OSError:
        listens = False
    if listens:
        raise ConfigError(
            f"guest {name}: its record is damaged, and it lives", hint="see `qmpmem doctor`"
        )
    return name


def _is_same_file(one: str, other: str) -> bool:
    try:
        return one == other or os.path.samestat(os.lstat(one), os.lstat(other))
    except OSError:
        return False


def _registered(path: str, found: LiveGuest) -> ConfigError:
    text = f"{path}: process {found.pid} is guest {found.record.id} already"
    return ConfigError(text, hint=f"`qmpmem forget {found.record.id}` lets go of it")


def _managed_by(name: str, manager: str) -> GuestRefused:
    return GuestRefused(
        f"guest {name}: {manager} manages it",
        error_class="Managed",
        hint=f"{managers.find(manager).advice}: two that set one balloon fight each other "
        "(--force adopts it all the same)",
    )
