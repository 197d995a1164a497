"""Carries changes of KSM out: all or nothing, and read back.

Theory of operation:
    judge the whole change → note down what is there → write → read back. If a write fails, or what
    is read back is not what was written, everything that was written is put back, but never over a
    value that somebody else wrote meanwhile. Nothing is tried twice: whoever else steers KSM
    (ksmtuned, a script) is told of, not fought.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from qmpmem.errors import KernelError
from qmpmem.ksm import ledger as books
from qmpmem.ksm import rules
from qmpmem.ksm.ledger import Ledger
from qmpmem.ksm.rules import Write
from qmpmem.records import Record, replace
from qmpmem.snapshot import KsmState
from qmpmem.wire.kernel import ksm

Writer = Callable[[str, str], None]
"""Writes a value to a file by its name; raises KernelError."""


class Restored(Record, frozen=True):
    """What was put back, and what was left to whoever changed it."""

    writes: tuple[Write, ...]
    left: Mapping[str, str]


class Hand:
    """Changes KSM on one host.

    Args:
        where: the directory of the ledger.
        root: the host's file system.
        writer: how a file is written, where not in the plain way.
    """

    def __init__(self, where: Path, root: Path = Path("/"), writer: Writer | None = None) -> None:
        self._where = where
        self._root = root
        self._write: Writer = writer or (lambda name, value: ksm.write(name, value, root))

    def state(self) -> KsmState:
        """Read what is there.

        Raises:
            KernelError: nothing, or something odd.
        """
        seen = ksm.state(self._root)
        if seen is None:
            raise KernelError(
                f"/{ksm.DIRECTORY}: this kernel cannot merge pages",
                hint="it needs CONFIG_KSM, as all distributions' kernels have",
            )
        return seen

    def plan(self, wanted: Mapping[str, str]) -> tuple[Write, ...]:
        """Say what `apply` would write; needs no rights.

        Raises:
            ConfigError: the kernel would refuse some of it.
            KernelError: there is no KSM.
        """
        state = self.state()
        rules.check(wanted, state)
        return rules.plan(wanted, state)

    def apply(self, wanted: Mapping[str, str]) -> tuple[Write, ...]:
        """Change what has to be changed.

        Returns:
            What was written; empty where all of it was so already.

        Raises:
            ConfigError: the kernel would refuse some of it; nothing was written.
            KernelError: it could not be done; what was written was put back.
        """
        with books.locked(self._where):
            state = self.state()
            rules.check(wanted, state)
            writes = rules.plan(wanted, state)
            if writes:
                self._change(writes, state)
            return writes

    def restore(self) -> Restored:
        """Put back what was there before us, but for what somebody else changed since.

        Raises:
            ConfigError: the kernel would refuse it now; nothing was written.
            KernelError: it could not be done; what was written was taken back.
        """
        with books.locked(self._where):
            book, state = books.load(self._where, self._root), self.state()
            now = rules.current(state)
            wanted = former(book, now)
            rules.check(wanted, state)
            writes = rules.plan(wanted, state)
            self._carry_out(writes, state)
            books.save(self._where, Ledger(boot=book.boot))
            left = books.foreign(book, now)
            return Restored(
                writes=writes,
                left={name: left[name] for name in left if left[name] != book.before.get(name)},
            )

    def _change(self, writes: tuple[Write, ...], state: KsmState) -> None:
        book, now = books.load(self._where, self._root), rules.current(state)
        book = _count_taken(book, writes, now)
        noted = books.note(book, writes, now, time.time())
        if any(write.name == rules.RUN and write.after == "1" for write in writes):
            noted = replace(noted, scans=state.full_scans or 0)
        books.save(self._where, noted)
        try:
            self._carry_out(writes, state)
        except BaseException:
            books.save(self._where, book)
            raise

    def _carry_out(self, writes: tuple[Write, ...], state: KsmState) -> None:
        tried: list[Write] = []
        try:
            for write in writes:
                tried.append(write)
                self._write(write.name, write.after)
            self._read_back(writes)
        except BaseException as error:
            left = self._take_back(tried, state)
            if isinstance(error, KernelError):
                outcome = f"these are changed: {' '.join(left)}" if left else "nothing is changed"
                raise KernelError(f"{error.message}; {outcome}", hint=error.hint) from error
            raise

    def _read_back(self, writes: tuple[Write, ...]) -> None:
        now = rules.current(self.state())
        for write in writes:
            found = now.get(write.name, write.after)
            if found != write.after:
                raise KernelError(
                    f"/{ksm.DIRECTORY}/{write.name}: wrote {write.after}, and it reads {found}: "
                    "somebody else is changing it",
                    hint="is ksmtuned running, or another script? qmpmem does not fight over it",
                )

    def _take_back(self, tried: list[Write], state: KsmState) -> list[str]:
        """Put back what was written; returns the names of what could not be."""
        before, now = rules.current(state), rules.current(self.state())
        # The last one may have failed half way: run=2 that was cut off leaves run=0.
        mine = {write.name for write in tried[:-1] if now.get(write.name) == write.after}
        mine |= {write.name for write in tried[-1:]}
        if rules.MODE in mine:
            mine.add(rules.PAGES)
        wanted = {name: before[name] for name in mine & before.keys()}
        left: list[str] = []
        for write in rules.plan(wanted, self.state()):
            try:
                ksm.write(write.name, write.after, self._root)
            except KernelError:
                left.append(write.name)
        return left


def former(book: Ledger, now: Mapping[str, str]) -> dict[str, str]:
    """Say what has to be written to put everything back. Pure."""
    mine = set(books.own(book, now))
    if rules.MODE in mine and book.before.get(rules.MODE) == "none":
        mine.add(rules.PAGES)
    return {name: book.before[name] for name in mine if name in book.before}


def _count_taken(book: Ledger, writes: tuple[Write, ...], now: Mapping[str, str]) -> Ledger:
    """Count the times that somebody else changed what we want to change again.

    Raises:
        KernelError: so often that it is theirs.
    """
    theirs = books.foreign(book, now).keys() & {write.name for write in writes}
    taken = {name: book.taken.get(name, 0) + (name in theirs) for name in {*book.taken, *theirs}}
    lost = sorted(name for name in theirs if taken[name] >= books.GIVE_UP)
    if lost:
        raise KernelError(
            f"{', '.join(lost)}: somebody else changed it {books.GIVE_UP} times after us",
            hint="stop whoever does (ksmtuned?), or leave it to them: `qmpmem ksm restore`",
        )
    return replace(book, taken=taken)
