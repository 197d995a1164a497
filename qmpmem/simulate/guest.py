"""One simulated guest: what it does with its memory in each quarter of a second.

Theory of operation:
    A guest's memory is five parts that add up to its maximum:

        balloon | anon | cache | dirty | what was never touched

    `anon` is what programs hold, `cache` are files, `dirty` is free but still backed by the host,
    because the host was not told that it is free. What was never touched costs the host nothing,
    and ballooning it frees nothing. A driver that takes free pages takes both kinds, in proportion.
    `hosted` is the part of the touched memory that the host has put into its own swap: the coldest.

    What a program wants comes, in this order, from free memory, from the page cache, and, as fast
    as the disk is, from other programs' pages that go to the guest's own swap. Then the balloon
    gives, with deflate-on-oom; else the guest's kernel kills.
"""

from typing import TYPE_CHECKING, Final, assert_never

from qmpmem.simulate.memory_supply import MemorySupply
from qmpmem.simulate.spec import Contained, Driver, Event, GuestSpec, Pause, Plug, Reboot
from qmpmem.units import MIB, PAGE

if TYPE_CHECKING:
    from qmpmem.model.observation import Beginning

STEP: Final = 0.25
"""Seconds of a step."""

WATERMARK: Final = 128
"""Divisor of a guest's memory that gives what its kernel keeps free (kernel: admin-guide/sysctl/vm,
min_free_kbytes)."""
BOOT: Final = 8.0
"""Seconds until a guest that was reset has its balloon driver again."""
RESTART: Final = 5.0
"""Seconds until a program that was killed runs again."""
REPORTED: Final = 2.0
"""Seconds in which free page reporting returns what is free (Linux: PAGE_REPORTING_DELAY)."""
OVERHEAD: Final = 37 * MIB
"""What QEMU needs beside the guest's memory, measured with a paused guest."""
FAULT: Final = 16 * PAGE
"""What a major fault reads: a little more than what was asked for."""
PIECEMEAL: Final = 4.0
"""Times as long as writing to the host's swap that reading back takes: what a guest asks for next
is not what was written next (kernel: admin-guide/sysctl/vm, page-cluster: 8 pages)."""
ROUND: Final = 10.0
"""Seconds in which hot files are read through, where the guest sets no speed; and for which the
host takes a page for used that was written to."""
COMPRESSED: Final = 1 / 3
"""Part of what zram holds that it needs for it, with lzo and lz4 (kernel:
admin-guide/blockdev/zram)."""
NOTICED: Final = 8 * MIB
"""Bytes: a guest that waits for so much in a step waits all the time."""
SHORT_PERCENT: Final = 1
"""Percent of what it wants: a guest that lacks more is in distress."""
NEVER: Final = float("inf")


class Guest:
    """A guest that runs. Sizes are bytes.

    Attributes:
        maximum: boot memory and plugged memory.
        balloon: what is in the balloon.
        told: what shall be in it by the last command, which QEMU remembers.
        goal: what shall be in it as its driver knows it: less once it took memory back by itself.
        swapped: what its programs hold in the guest's own swap.
        kept: what is in the balloon and was not given back to the host.
        wanted: what its programs want now.
        unmet: what it uses all the time, and does not have.
        lacked: the sum of `unmet` so far, in byte-seconds.
        distress: seconds in which it lacked more than 1 % of what it wants, or waited for the host.
        longest: the longest time of such lack at a stretch.
        stalled: the part of the last step, 0 to 1, in which it waited for the host.
        moved: what went through the balloon so far.
        kills: programs that its kernel killed for want of memory, in all.
        killed: programs that its kernel killed for want of memory since its last boot.
        lost: it was killed by the host, and not started again.
        stalls: quarters of a second in which its programs had to make room, since its boot.
        epoch: counts its resets and new starts.
        began: how the epoch began.
        started: when its QEMU did.
        reads: what it read from its disks since its QEMU started.
        waited: seconds in which it waited for the host, since its QEMU started.
    """

    __slots__ = (
        "_boots_until",
        "_disk",
        "_event",
        "_fills",
        "_next",
        "_pager",
        "_paused_until",
        "_rereads",
        "_restarts_at",
        "_shown",  # bytes in the balloon, as its driver last said
        "_since",
        "_spell",
        "_supply",
        "_unread",
        "_waits",
        "_young",
        "anon",
        "balloon",
        "began",
        "cache",
        "dirty",
        "distress",
        "epoch",
        "faults",
        "goal",
        "hosted",
        "kept",
        "killed",
        "kills",
        "lacked",
        "longest",
        "lost",
        "maximum",
        "moved",
        "reads",
        "spec",
        "stalled",
        "stalls",
        "started",
        "swap_in",
        "swap_out",
        "swapped",
        "told",
        "unmet",
        "waited",
        "wanted",
    )

    def __init__(self, spec: GuestSpec, supply: MemorySupply) -> None:
        self.spec = spec
        self.maximum = float(spec.memory)
        self.balloon = self.goal = self.told = float(spec.balloon)
        self.kept = self.hosted = 0.0
        self.anon = self.swapped = self.cache = self.dirty = 0.0
        self.swap_in = self.swap_out = self.faults = 0.0
        self.wanted = self.unmet = self.stalled = self.moved = 0.0
        self.kills = self.killed = self.epoch = self.stalls = 0
        self.lacked = self.distress = self.longest = self._spell = 0.0
        self._supply = supply
        self._event = 0
        self._next = min((event.at for event in spec.events), default=NEVER)
        self._since = spec.starts
        self._boots_until = spec.starts
        self._paused_until = self._restarts_at = -NEVER
        self._shown = self.balloon
        self._fills = spec.touches_all
        self._disk: float = 0.0
        self._pager = self._waits = self._young = self.reads = self.waited = 0.0
        self._rereads = spec.rereads or spec.hot_files / ROUND
        self._unread = float(max(spec.files, spec.hot_files))
        self.began: Beginning = "seen"
        self.lost = False
        self.started = spec.starts

    @property
    def resident(self) -> float:
        """Return what the host backs with memory."""
        return self.anon + self.cache + self.dirty - self.hosted + self.kept

    @property
    def untouched(self) -> float:
        """Return what is not in use, and costs the host nothing."""
        return self.maximum - self.balloon - self.anon - self.cache - self.dirty

    @property
    def actual(self) -> float:
        """Return what is not in the balloon, as QEMU shows it.

        After a reset the driver does not tell it until it has moved something
        (drivers/virtio/virtio_balloon.c, update_balloon_size_func).
        """
        return self.maximum - self._shown

    def is_up(self, now: float) -> bool:
        """Tell whether it was started, and is there."""
        return now >= self.spec.starts and not self.lost

    def up(self, now: float) -> float:
        """Return the seconds since its balloon driver was loaded; negative before."""
        return now - self._boots_until

    def is_paused(self, now: float) -> bool:
        """Tell whether it is stopped now."""
        return now < self._paused_until

    def has_driver(self, now: float) -> bool:
        """Tell whether its balloon driver is loaded by now."""
        return now >= self._boots_until

    def tell(self, target: int) -> None:
        """Command it to a size."""
        if self.spec.driver is not None:
            self.goal = self.told = max(0.0, self.maximum - target)

    def open_files(self, size: float) -> None:
        """Have it read so many more bytes, once."""
        self._unread += size

    def has_read(self) -> bool:
        """Tell whether it has read all that it reads once."""
        return self._unread <= PAGE

    def cold(self) -> float:
        """Return how much of what the host backs is not in use, and was not written to of late."""
        idle = self.anon + self.cache + self.dirty - self._hot() - self._recent()
        return max(0.0, idle - self.hosted)

    def start_over(self, now: float) -> None:
        """Start a new QEMU in the place of one that was killed; its users wait for it."""
        self.lost = not self.spec.restarts
        since = self._since
        self._reset(now)
        self._since = since
        self._restarts_at = now + BOOT
        self.dirty = self.hosted = self.goal = self.told = 0.0
        self.reads = self.waited = 0.0
        self.began = "seen"
        self.started = now
        self._shown = 0.0

    def step(self, now: float) -> None:
        """Run for `STEP` seconds, and take from the host what is needed for that."""
        if not self.is_up(now):
            return
        touched = self.anon + self.cache + self.dirty
        if now >= self._next:
            self._happen(now)
        if now < self._paused_until:
            self.unmet = self.stalled = 0.0
            return
        self._young *= 1 - STEP / ROUND
        self._disk = self.spec.reads * STEP
        self._pager = (self.spec.swap_speed or self.spec.reads) * STEP
        self._waits = 0.0
        if now >= self._boots_until and self.spec.driver is not None:
            before = self.balloon
            self._move_balloon(self.spec.driver, now)
            if self.balloon != before:
                self._shown = self.balloon
        self._run(now)
        if self.hosted:
            after = self.anon + self.cache + self.dirty
            if after < touched:  # what is given back is dropped from the host's swap as well
                self.hosted *= after / touched
            self._fetch()
        self.stalled = min(1.0, self._waits)
        self.waited += self.stalled * STEP
        if self.unmet or self.stalled:
            self._note()
        else:
            self._spell = 0.0

    def _happen(self, now: float) -> None:
        """Let the next event happen."""
        events = sorted(self.spec.events, key=lambda event: event.at)
        self._apply(events[self._event], now)
        self._event += 1
        self._next = events[self._event].at if self._event < len(events) else NEVER

    def _apply(self, event: Event, now: float) -> None:
        match event:
            case Reboot():
                self._reset(now)
            case Plug(size=size):
                self.maximum += size
            case Pause(lasts=lasts):
                self._paused_until = now + lasts
            case Contained():
                self.killed += 1
            case _:
                assert_never(event)

    def _reset(self, now: float) -> None:
        """Start anew. QEMU goes on showing the old size, and the target outlives the reset."""
        self.dirty += self.anon + self.cache
        self.anon = self.cache = self.swapped = self.balloon = self.kept = 0.0
        self.swap_in = self.swap_out = self.faults = self._young = 0.0
        self.killed = self.stalls = 0
        self._unread = float(max(self.spec.files, self.spec.hot_files))
        self.goal = self.told
        self.epoch += 1
        self.began = "reset"
        self._fills = self.spec.touches_all
        self._boots_until = self._since = now + BOOT

    def _move_balloon(self, driver: Driver, now: float) -> None:
        if driver.retakes and self.balloon:
            self._deflate(min(self.balloon, driver.retakes * STEP))
            self.goal = min(self.goal, self.balloon)
        if driver.period and now % driver.period >= driver.works:
            return
        gap = self.goal - self.balloon
        if gap > driver.misses:
            room = self.maximum - self.balloon - driver.least
            self._inflate(min(gap - driver.misses, driver.inflate * STEP, max(0.0, room)), driver)
        elif -gap > driver.misses:
            most = self.maximum if driver.most is None else driver.most
            room = most - (self.maximum - self.balloon)
            self._deflate(min(-gap - driver.misses, driver.deflate * STEP, max(0.0, room)))

    def _deflate(self, amount: float) -> None:
        self.balloon -= amount
        self.moved += amount
        if self.kept:
            back = min(self.kept, amount)
            self.kept -= back
            self.dirty += back

    def _inflate(self, amount: float, driver: Driver) -> None:
        """Fill the balloon: with free pages, then cache, then what can go to the guest's swap."""
        fresh = self.untouched
        take = min(amount, max(0.0, fresh + self.dirty - self._watermark()))
        if take < amount:
            dropped = min(amount - take, self.cache)
            self.cache -= dropped
            paged = self._page_out(amount - take - dropped)
            self.dirty += dropped + paged
            take += dropped + paged
        if take <= 0:
            return
        backed = take * self.dirty / (self.dirty + fresh)
        self.dirty -= backed
        self.balloon += take
        self.moved += take
        if not driver.frees:
            self.kept += backed

    def _watermark(self) -> float:
        return (self.maximum - self.balloon) / WATERMARK

    def _page_out(self, wanted: float) -> float:
        """Put programs' memory into the guest's swap, as fast as its disk is."""
        spec = self.spec
        if not spec.swap or wanted <= 0:
            return 0.0
        most = min(wanted, self._pager, spec.swap - self.swapped, self.anon - self._fixed())
        paged = max(0.0, most)
        self.anon -= paged
        self.swapped += paged
        self.swap_out += paged
        self._pager -= paged
        return paged

    def _fixed(self) -> float:
        """Return what is never paged out: its kernel's memory, and what zram holds compressed."""
        return self.spec.kernel + (self.swapped * COMPRESSED if self.spec.zram else 0.0)

    def _run(self, now: float) -> None:
        """Let programs take what they want, and free the rest, and let files be read."""
        spec = self.spec
        load = spec.load.at(now - self._since) if now >= self._since else 0.0
        self.wanted = spec.kernel + load
        fixed = self._fixed()
        wants = fixed + (load if now >= self._restarts_at else 0.0)
        lacks = wants - self.anon - self.swapped
        if lacks < 0:
            self._release(-lacks)
        elif lacks > 0:
            self._allocate(min(lacks, spec.allocates * STEP), now)
        needs = fixed + load * spec.hot
        if self.swapped and self.anon < needs:
            self._swap_in(min(self.swapped, needs - self.anon))
        if self._unread or spec.hot_files or spec.refills:
            self._read_files()
        if self._fills:
            grown = self._from_untouched(spec.allocates * STEP)
            self.dirty += grown
            self._fills = self.untouched > self._watermark() + PAGE
        if spec.free_page_reporting:
            self.dirty -= self.dirty * STEP / REPORTED
        missing = max(0.0, needs - self.anon) + self._dropped()
        self.unmet = missing if missing > PAGE else 0.0

    def _note(self) -> None:
        """Count what it had to do without."""
        self.lacked += self.unmet * STEP
        if self.unmet * 100 <= self.wanted * SHORT_PERCENT:
            self.distress += STEP * self.stalled
            self._spell = 0.0
            return
        self.distress += STEP
        self._spell += STEP
        self.longest = max(self.longest, self._spell)

    def _release(self, amount: float) -> None:
        have = self.anon + self.swapped
        paged = amount * self.swapped / have
        self.swapped -= paged
        self.anon -= amount - paged
        self.dirty += amount - paged

    def _allocate(self, amount: float, now: float) -> None:
        """Find memory for programs, by all means that a kernel has; the last is to kill."""
        waited = self._waits
        left = amount - self._find(amount)
        self.anon += amount - left
        if left <= PAGE:
            return
        self.stalls += 1
        if self._waits > waited:  # it waits for the host
            return
        left -= self._page_out_for(left)
        if left <= PAGE or self._can_page():
            return
        if self.spec.deflate_on_oom and self.balloon and self.spec.driver is not None:
            self._deflate(min(self.balloon, left, self.spec.driver.rescues * STEP))
            self._shown = self.balloon
            self.goal = min(self.goal, self.balloon)  # it stays so until told anew
            self.anon += self._from_untouched(left)
            return
        self._kill(now)

    def _page_out_for(self, amount: float) -> float:
        """Make room for new pages by paging out old ones; the new are in `anon` at once."""
        paged = self._page_out(amount)
        self.anon += paged
        return paged

    def _can_page(self) -> bool:
        return self.spec.swap - self.swapped > PAGE and self.anon > self._fixed()

    def _kill(self, now: float) -> None:
        self.kills += 1
        self.killed += 1
        self.dirty += max(0.0, self.anon - self.spec.kernel)
        self.anon = min(self.anon, float(self.spec.kernel))
        self.swapped = 0.0
        self._restarts_at = now + RESTART

    def _find(self, amount: float) -> float:
        """Find room within the guest: what is free, then cache."""
        free = max(0.0, self.untouched + self.dirty - self._watermark())
        used = min(amount, free, self.dirty)
        self.dirty -= used
        if used < amount and used < free:
            used += self._from_untouched(min(amount, free) - used)
        if used < amount and self.cache and used >= free - PAGE:
            dropped = min(amount - used, self.cache)
            self.cache -= dropped
            used += dropped
            self.stalls += 1  # reclaim by itself, though all is well (Linux: allocstall)
        return used

    def _from_untouched(self, amount: float) -> float:
        """Touch memory for the first time: the host has to find it, and the guest may wait."""
        supply = self._supply
        amount = min(amount, max(0.0, self.untouched))
        owed = supply.owed
        found = supply.take(amount)
        self._waits += (supply.owed - owed) / supply.most
        if found < amount:
            supply.refused += amount - found
            self._waits += (amount - found) / NOTICED
        return found

    def _swap_in(self, amount: float) -> None:
        """Read back what is in use; where it does not fit, page out other pages for it."""
        amount = min(amount, self._pager)
        found = self._find(amount)
        self.anon += found
        self.swapped -= found
        thrashed = min((amount - found) / 2, self._pager / 2)
        self._pager -= found + 2 * thrashed
        if not self.spec.zram:
            self.reads += found + thrashed
        self.swap_in += found + thrashed
        self.swap_out += thrashed
        self.faults += (found + thrashed) / FAULT

    def _read_files(self) -> None:
        """Read what was not read yet, once, at the disk's speed; hot files again and again."""
        if self.spec.refills:
            room = max(0.0, self.untouched + self.dirty - self._watermark())
            self._unread = max(0.0, min(self.spec.files - self.cache, room))
        if self._unread:
            self._unread -= self._read(min(self._unread, self._disk))
        dropped = self._dropped()
        if dropped > 0:
            read = self._read(self._rereads * STEP * dropped / self.spec.hot_files)
            if self.spec.mapped:
                self.faults += read / FAULT

    def _dropped(self) -> float:
        """Return what was read of hot files, and is not in the cache any more."""
        spec = self.spec
        if not spec.hot_files:
            return 0.0
        read = max(spec.files, spec.hot_files) - self._unread
        return max(0.0, min(spec.hot_files, read) - self.cache)

    def _read(self, wanted: float) -> float:
        """Read from the disk into free memory, else into the cache in the place of older files."""
        amount = min(wanted, self._disk)
        self._disk -= amount
        self.reads += amount
        self._young += amount
        free = max(0.0, self.untouched + self.dirty - self._watermark())
        grows = min(amount, free)
        used = min(grows, self.dirty)
        self.dirty -= used
        self.cache += used + self._from_untouched(grows - used)
        return amount

    def _hot(self) -> float:
        """Return how much of what it holds is in use all the time."""
        spec = self.spec
        needs = self._fixed() + (self.wanted - spec.kernel) * spec.hot
        return min(self.anon, needs) + min(self.cache, spec.hot_files)

    def _recent(self) -> float:
        """Return what was read of late and is not hot: the host finds it in use, as it is written.

        A stream goes through all of its cache, so what the host swapped out of that has to come
        back.
        """
        return min(max(0.0, self.cache - self.spec.hot_files), self._young)

    def _fetch(self) -> None:
        """Read back from the host's swap what is in use; the coldest is there."""
        supply = self._supply
        idle = self.anon + self.cache + self.dirty - self._hot()
        unmet = max(0.0, self.hosted - idle)
        missing = max(unmet, self.hosted - idle + self._recent())
        if missing <= PAGE:
            return
        back = supply.take(min(missing, supply.disk / (PIECEMEAL + 1)))
        self.hosted -= back
        supply.disk -= back * PIECEMEAL
        supply.room += back
        supply.swap_in += back
        self._waits += back * PIECEMEAL / supply.most + (missing - back) / NOTICED
        self.unmet += unmet
