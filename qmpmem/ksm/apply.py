"""Carries changes of KSM out: all or nothing, and read back.

Theory of operation:
    judge the whole change → note down what is there → write → read back. If a write fails, or what
    is read back is not what was written, everything that was written is put back, but never over a
    value that another program wrote meanwhile. Nothing is tried twice: another program that steers
    KSM (ksmtuned, a script) is reported, and not fought.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from qmpmem.errors import KernelError
from qmpmem.ksm import ledger as books
from qmpmem.ksm import rules, unmerge
from qmpmem.ksm.ledger import Ledger
from qmpmem.ksm.rules import Write
from qmpmem.ksm.unmerge import Writer
from qmpmem.model.ksm import KsmState
from qmpmem.records import Record, replace
from qmpmem.wire import kernel
from qmpmem.wire.kernel import ksm


class Restored(Record, frozen=True):
    """What was put back, and what was left as another program changed it."""

    writes: tuple[Write, ...] = ()
    left: Mapping[str, str] = {}


class KsmWriter:
    """Changes KSM on one host.

    Args:
        where: the directory of the ledger.
        root: the host's file system.
        writer: writes a file; None: `unmerge.writer`.
        by_agent: whether this process is an agent, and not a command.
    """

    def __init__(
        self,
        where: Path,
        root: Path = Path("/"),
        writer: Writer | None = None,
        *,
        by_agent: bool = False,
    ) -> None:
        self.problems: list[str] = []
        """What else an administrator should know, one line each."""
        self._where = where
        self._root = root
        self._by_agent = by_agent
        self._write: Writer = writer or unmerge.writer(root)

    def state(self) -> KsmState:
        """Read the state of KSM.

        Raises:
            KernelError: there is no KSM, or its files hold something unexpected.
        """
        seen = ksm.state(self._root)
        if seen is None:
            raise KernelError(
                f"/{ksm.DIRECTORY}: this kernel cannot merge pages",
                hint="it needs CONFIG_KSM, as all distributions' kernels have",
            )
        return seen

    def plan(self, wanted: Mapping[str, str]) -> tuple[Write, ...]:
        """Return what `apply` would write; this needs no rights.

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
            What was written; empty where all values were so already.

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

    def restore(
        self, expect_one_domain: Callable[[], None] | None = None, *, only_agents: bool = False
    ) -> Restored:
        """Put back what was there before us, except what another program has changed since.

        Args:
            expect_one_domain: called before merging is switched on again; it raises where guests
                that do not trust each other would merge. None: they may.
            only_agents: whether to put nothing back where no agent changed anything, or another
                agent that did still runs.

        Raises:
            ConfigError: the kernel would refuse it now, or guests of different domains would merge;
                nothing was written.
            KernelError: it could not be done; what was written was undone.
        """
        if only_agents and not self._is_left(books.load(self._where, self._root).agent):
            return Restored()
        with books.locked(self._where):
            book, state = self._load(), self.state()
            now = rules.current(state)
            wanted = former(book, now)
            rules.check_return(wanted, state)
            writes = rules.plan(wanted, state)
            merges = any((write.name, write.after) == (rules.RUN, "1") for write in writes)
            if merges and expect_one_domain is not None:
                expect_one_domain()
            if book.ours:
                noted = books.note_return(book, writes, now)
                pages = LedgerStages(book=book, noted=noted, done=Ledger())
                self._carry_out(writes, state, pages, is_return=True)
            left = books.foreign(book, now)
            return Restored(
                writes=writes,
                left={name: left[name] for name in left if left[name] != book.before.get(name)},
            )

    def _change(self, writes: tuple[Write, ...], state: KsmState) -> None:
        book, now = self._load(), rules.current(state)
        noted = books.note(_count_taken(book, writes, now), writes, now, time.time())
        if any(write.name == rules.RUN and write.after == "1" for write in writes):
            noted = replace(noted, scans=state.full_scans or 0)
        noted = replace(noted, agent=self._own() or noted.agent)
        self._carry_out(
            writes, state, LedgerStages(book=book, noted=noted, done=books.settle(noted))
        )

    def _own(self) -> tuple[int, int] | None:
        """Return the pid and start time of this process, if it is an agent; else None."""
        process = kernel.process(os.getpid()) if self._by_agent else None
        return None if process is None else (process.pid, process.start_time)

    def _is_left(self, agent: tuple[int, int] | None) -> bool:
        """Tell whether an agent that changed something is gone, or is this process."""
        if agent is None or agent == self._own():
            return agent is not None
        process = kernel.process(agent[0])
        return process is None or process.start_time != agent[1] or process.state == "Z"

    def _load(self) -> Ledger:
        """Read the ledger; one that is not believed is renamed, and a new one begun."""
        try:
            return books.load(self._where, self._root)
        except books.RefusedError as error:
            books.set_aside(self._where)
            self.problems.append(error.message)
            return Ledger(boot=books.boot_id(self._root))

    def _carry_out(
        self,
        writes: tuple[Write, ...],
        state: KsmState,
        pages: "LedgerStages",
        *,
        is_return: bool = False,
    ) -> None:
        try:
            books.save(self._where, pages.noted)
        except KernelError as error:
            # A full disk does not prevent a return: an interrupted one leaves half as it was.
            if not is_return:
                raise
            self.problems.append(f"{error.message}; put back all the same")
        try:
            for write in writes:
                self._write(write.name, write.after)
            self._read_back(writes)
        except BaseException as error:
            left = self._take_back(pages.noted, state)
            if not left:
                self._turn_to(pages.book)
            if isinstance(error, KernelError):
                outcome = f"these are changed: {' '.join(left)}" if left else "nothing is changed"
                raise KernelError(f"{error.message}; {outcome}", hint=error.hint) from error
            raise
        self._turn_to(pages.done)

    def _turn_to(self, book: Ledger) -> None:
        # Where that fails, what was noted stays: it is true as well, and only holds more.
        with suppress(KernelError):
            books.save(self._where, book)

    def _read_back(self, writes: tuple[Write, ...]) -> None:
        now = rules.current(self.state())
        for write in writes:
            found = now.get(write.name)
            if found != write.after:
                raise KernelError(
                    f"/{ksm.DIRECTORY}/{write.name}: wrote {write.after}, and it reads "
                    f"{found or 'nothing'}: another program changes it",
                    hint="is ksmtuned running, or another script? qmpmem does not fight over it",
                )

    def _take_back(self, noted: Ledger, state: KsmState) -> list[str]:
        """Put back what was written, and return the names of the files where that failed."""
        before = rules.current(state)
        try:
            seen = self.state()
        except KernelError:
            return sorted(noted.passing)
        left: list[str] = []
        for write in rules.plan(_taken_back(noted, before, rules.current(seen)), seen):
            try:
                self._write(write.name, write.after)
            except KernelError:
                left.append(write.name)
        return left


class LedgerStages(Record, frozen=True):
    """The ledger in the course of a change."""

    book: Ledger
    """The ledger before the change, and again after the change was undone."""
    noted: Ledger
    """The ledger during the change."""
    done: Ledger


def former(book: Ledger, now: Mapping[str, str]) -> dict[str, str]:
    """Return what has to be written to put everything back. Pure."""
    return _back(books.own(book, now), book.before, now)


def _taken_back(noted: Ledger, before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return what has to be written to undo a change, but nothing over another program's values."""
    return _back(books.own(noted, now) & noted.passing.keys(), before, now)


def _back(
    mine: frozenset[str], before: Mapping[str, str], now: Mapping[str, str]
) -> dict[str, str]:
    """Return what has to be written so that what is ours is as before."""
    then = {**now, **{name: before[name] for name in mine if name in before}}
    names = set(mine)
    if rules.under_advisor(then):
        names.discard(rules.PAGES)  # the kernel sets it
    elif rules.MODE in mine and rules.under_advisor(now):
        names.add(rules.PAGES)  # lost when the advisor is switched off
    return {name: before[name] for name in names if name in before}


def _count_taken(book: Ledger, writes: tuple[Write, ...], now: Mapping[str, str]) -> Ledger:
    """Count the times that another program changed what we want to change again.

    Raises:
        KernelError: it did so as often as `GIVE_UP`, so that the file is left to it.
    """
    theirs = books.foreign(book, now).keys() & {write.name for write in writes}
    taken = {name: book.taken.get(name, 0) + (name in theirs) for name in {*book.taken, *theirs}}
    lost = sorted(name for name in theirs if taken[name] >= books.GIVE_UP)
    if lost:
        raise KernelError(
            f"{', '.join(lost)}: another program changed it {books.GIVE_UP} times after us",
            hint="stop that program (ksmtuned?), or leave KSM to it: `qmpmem ksm restore`",
        )
    return replace(book, taken=taken)
