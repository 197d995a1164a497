"""The numbers that the policy rests on, with what its source says about each.

Made from that source by ``.venv/bin/python -m tests.rig.policy_constants``; a test compares both.
"""

from typing import Final

CONSTANTS: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "config.MINIMUM_PERCENT",
        "35",
        (
            "Percent of its maximum that a guest keeps by default: ESX caps the balloon at 65 % "
            "(Mem.CtlMaxPercent)."
        ),
    ),
    (
        "config.MINIMUM_LEAST",
        "128 MiB",
        "Least that a guest keeps by default: a kernel needs so much of even a small guest.",
    ),
    (
        "config.SHARES",
        "1000",
        "A guest's weight by default.",
    ),
    (
        "config.PRESETS",
        (
            "default: minimum_percent: 35, shares: 1000, headroom_percent: 20, database: "
            "minimum_percent: 60, shares: 2000, headroom_percent: 30, desktop: minimum_percent: 40,"
            " shares: 1000, headroom_percent: 25, ci: minimum_percent: 25, shares: 500, "
            "headroom_percent: 20"
        ),
        "What a guest of each class gets where no rule sets it: minimum and headroom in percent.",
    ),
    (
        "config.LEAST_HEADROOM",
        "64 MiB",
        (
            "Least that a guest is left beyond what it works with: a tenth of a guest of less than "
            "640 MiB, and a fortieth of a guest of more than 2.5 GiB."
        ),
    ),
    (
        "config.ANY",
        (
            "match: *, minimum: None, maximum: None, current: None, shares: None, managed: True, "
            "reclaim: None, kind: default, domain: None"
        ),
        "The rule of a guest that no rule of the configuration matches.",
    ),
    (
        "allocation.EXACT",
        "pin, release",
        (
            "Kinds of goals that are carried out whatever other guests lack, unless the host is in "
            "CRITICAL."
        ),
    ),
    (
        "allocation.TRIED_PART",
        "8",
        (
            "Divisor of a guest's entitlement: a guest that has less than so much beyond it is not "
            "tried, because entitlements move a little."
        ),
    ),
    (
        "allocation.UNNEEDED",
        "cache, habit, plenty",
        "Kinds of growth that a guest is given though its programs have what they need.",
    ),
    (
        "allocation.CACHE_PART",
        "4",
        (
            "Divisor of a guest's entitlement: page cache that pays keeps a guest from being tried "
            "up to so much, because only the guest tells how large it is."
        ),
    ),
    (
        "allocation.LACKING_PERCENT",
        "85",
        "Percent of its entitlement: where a guest suffers with less, others give for it.",
    ),
    (
        "allocation.REVOKED_PERCENT",
        "2",
        "Percent of a guest's maximum that is revoked from it a second.",
    ),
    (
        "allocation.HANDED_PERCENT",
        "15",
        (
            "Percent of what there is plenty of that is given a round to guests that do not need "
            "it. More guests may be about to start."
        ),
    ),
    (
        "allocation.REVOKED",
        "30.0",
        (
            "Seconds for which a guest gets no more than its entitlement after memory was revoked "
            "from it: after that it may cost the host swap again, if it suffers."
        ),
    ),
    (
        "allocation.NEEDED",
        "600.0",
        (
            "Seconds for which a guest counts as one that needs what it has, after it suffered for "
            "a revocation."
        ),
    ),
    (
        "allocation.PIECES",
        "4",
        (
            "Pieces into which what a guest can give is split: after each, the guest that is "
            "cheapest then is asked."
        ),
    ),
    (
        "allocation.RESERVE_PART",
        "2",
        "Divisor of the reserve that gives how much of it a guest that suffers may have.",
    ),
    (
        "allocation.SWAP_PART",
        "4",
        "Divisor of the host's free swap that gives how much of it a guest that suffers may cost.",
    ),
    (
        "behaviour.STALLS",
        "3",
        (
            "Stalls within 10 minutes after which a guest is uncooperative: the policy does not "
            "count on it."
        ),
    ),
    (
        "behaviour.SUSPECT_AFTER",
        "30.0",
        "Seconds for which a guest must cost more than it has before it is suspect.",
    ),
    (
        "behaviour.SETTLED",
        "5.0",
        (
            "Seconds and two reports after which a short host takes from a new guest as from any "
            "other. After a reset a guest boots at its full size, and its driver is up before its "
            "programs are: the seconds count from its first report then."
        ),
    ),
    (
        "behaviour.RELEASED",
        "60.0",
        (
            "Seconds for which a guest that was reset is given all it may have, unless it reports "
            "and has it before."
        ),
    ),
    (
        "behaviour.LEAST_REPORTS",
        "2",
        "Reports by which a guest is known: what it uses, and how that changes.",
    ),
    (
        "behaviour.STALE_POLLS",
        "3",
        "Reports that may be missing before a guest counts as silent.",
    ),
    (
        "behaviour.SLOWEST_POLL",
        "10.0",
        "Most seconds between two reports, where it is not known how often a guest is asked.",
    ),
    (
        "behaviour.LEAST_PATIENCE",
        "15.0",
        (
            "Seconds for which a report counts, however often a guest is asked. The guest may have "
            "been asked seldom until just now, and a host that swaps delays reports."
        ),
    ),
    (
        "behaviour.FOREIGN_REST",
        "60.0",
        "Seconds for which a balloon is left alone after another program moved it.",
    ),
    (
        "cache.READING",
        "1 MiB",
        (
            "Bytes a second: a guest that reads less than this again does not suffer for lack of "
            "page cache."
        ),
    ),
    (
        "cache.SLOW",
        "20971520",
        (
            "Bytes a second that a slow disk reads. A guest that waits for its disks a twentieth of"
            " the time suffers like one that reads `READING`."
        ),
    ),
    (
        "cache.SEEKS",
        "2.0",
        (
            "Least times its size that a read counts where a disk seeks: such a disk reads half as "
            "fast as a slow one, or slower."
        ),
    ),
    (
        "cache.WAITS",
        "0.5",
        (
            "Part of the time that a guest waits for such a disk, from which on no trial tells "
            "anything."
        ),
    ),
    (
        "cache.TWICE",
        "2.0",
        (
            "Times as much as before that a guest reads after a shrink, from which on it misses "
            "what it gave."
        ),
    ),
    (
        "cache.LESS",
        "0.9",
        (
            "Part of its reading before: a guest that still reads more of it with more memory reads"
            " a stream."
        ),
    ),
    (
        "cache.STARTS",
        "6.0",
        "Seconds for which a guest that starts reads all its files once: no page cache pays yet.",
    ),
    (
        "cache.KEPT",
        "600.0",
        "Seconds for which page cache that paid is kept.",
    ),
    (
        "cache.NOTED",
        "120.0",
        "Seconds after a shrink for which more reading counts as caused by it.",
    ),
    (
        "cache.SMOOTH",
        "2.0",
        "Seconds over which reading is averaged.",
    ),
    (
        "cache.SETTLES",
        "4.0",
        "Seconds after which a trial is judged.",
    ),
    (
        "cache.FAILED",
        "4",
        (
            "Times in a row that more memory had no effect, after which a guest counts as one that "
            "reads a stream."
        ),
    ),
    (
        "cache.STREAM",
        "600.0",
        "Seconds for which a guest counts as one that reads a stream.",
    ),
    (
        "cadence.EVERY",
        "SLACK: 10.0, BALANCED: 2.0, SOFT: 2.0, HARD: 1.0, CRITICAL: 1.0",
        "Seconds between two reports of a guest that has all it may have.",
    ),
    (
        "cadence.SQUEEZED",
        "2.0",
        (
            "Most seconds between two reports of a guest that has less than it may have: it may "
            "need more at any time."
        ),
    ),
    (
        "cadence.NEW",
        "1.0",
        "Seconds between two reports of a guest that has just started.",
    ),
    (
        "cadence.NEW_SECONDS",
        "15.0",
        "Seconds for which a guest counts as one that has just started.",
    ),
    (
        "cadence.HURRY",
        "1.0",
        "Seconds between two reports that are asked for at once.",
    ),
    (
        "cadence.GROWN_PERCENT",
        "2",
        (
            "Percent of its size: a guest that costs the host so much more than at its last report "
            "is asked at once. Page cache costs the host as well, and only a report tells which it "
            "is."
        ),
    ),
    (
        "cases.GROWABLE",
        "distress, grace, ineffective, normal, stale, stalled, suspect, uncooperative",
        (
            "Verdicts of guests that may be given more: that costs nothing but the host's memory, "
            "which is measured."
        ),
    ),
    (
        "commands.EXACT",
        "cap, pin, release",
        "Kinds of goals that are carried out to the byte: an operator may wait for just that size.",
    ),
    (
        "commands.PAUSE",
        "1.0",
        "Seconds between two commands to a guest; a quarter of that while the host is in need.",
    ),
    (
        "commands.REPEAT",
        "5.0",
        "Seconds after which a guest that is not where it was told to go is told the same again.",
    ),
    (
        "demand.FAST",
        "10.0",
        "Seconds over which `used` is averaged for what a guest cannot do without.",
    ),
    (
        "demand.SLOW",
        "120.0",
        "Seconds over which `used` is averaged for what a guest works with.",
    ),
    (
        "demand.OVERHEAD",
        "64 MiB",
        (
            "What QEMU may hold beside the guest's memory: a guest uses no more than is resident or"
            " in swap, and this."
        ),
    ),
    (
        "demand.SWAPPING",
        "1 MiB",
        (
            "Bytes a second: a guest with little available that reads back more from its swap is "
            "short."
        ),
    ),
    (
        "demand.SWAPPING_PART",
        "1024",
        (
            "Divisor of what a large guest has, which gives the bytes a second that it must read "
            "back from its swap to be short."
        ),
    ),
    (
        "demand.FAULTS",
        "50",
        (
            "Major faults a second: a guest with little available that has more reads its programs "
            "again and again."
        ),
    ),
    (
        "demand.FAULTS_PER_GIB",
        "10",
        (
            "Major faults a second for each GiB that a large guest has, from which on it counts as "
            "short."
        ),
    ),
    (
        "demand.LITTLE_PART",
        "10",
        (
            "Divisor of what a guest has: with less available, swapping, faults and kills count as "
            "distress."
        ),
    ),
    (
        "demand.LITTLE_LARGE",
        "40",
        (
            "Divisor of what a large guest has, as far as that gives more than 64 MiB: with less "
            "available, swapping, faults and kills count as distress."
        ),
    ),
    (
        "demand.COLLAPSE_PERCENT",
        "60",
        (
            "Percent of what a guest used while it was full: where it uses less at the next report,"
            " its kernel killed a program."
        ),
    ),
    (
        "demand.SHARP_REPORTS",
        "2",
        (
            "Reports in a row with much swapping from which on a guest is in distress: one alone "
            "may be a program that wakes up."
        ),
    ),
    (
        "demand.SAME_REPORT",
        "0.1",
        (
            "Seconds between the times of two reports, as their ages give them: with less it is one"
            " report."
        ),
    ),
    (
        "demand.BURST_MEMORY",
        "900.0",
        (
            "Seconds for which a guest that has grown at once keeps room to do so again, where the "
            "host has room. Most growth that comes again comes within a quarter of an hour, or the "
            "next day."
        ),
    ),
    (
        "demand.STARTS",
        "60.0",
        "Seconds for which a guest counts as starting.",
    ),
    (
        "demand.WAITS",
        "10.0",
        (
            "Percent of the time in which a task of a guest's own cgroup waits for memory: the "
            "guest waits for the host. A host that waits as much is in HARD."
        ),
    ),
    (
        "demand.WAITED",
        "10.0",
        "Seconds over which the time is averaged that a guest waits for the host (as PSI's avg10).",
    ),
    (
        "demand.STALLS_READ",
        "3.0",
        "Seconds within which the time that a guest waits for the host is read again for sure.",
    ),
    (
        "demand.SUFFERS",
        "10.0",
        "Seconds for which a guest counts as in distress after each sign of it.",
    ),
    (
        "demand.RELIEF",
        "60.0",
        "Seconds after distress for which nothing is taken from a guest.",
    ),
    (
        "demand.BOOST",
        "0.5",
        (
            "Part of its headroom that a guest has in addition after distress, fading over "
            "`BOOST_SECONDS`."
        ),
    ),
    (
        "demand.BOOST_SECONDS",
        "600.0",
        "Seconds until the additional headroom has faded.",
    ),
    (
        "engine.GAP",
        "3.0",
        (
            "Seconds without a round, or two periods, after which all counters are void: the agent "
            "was stopped meanwhile."
        ),
    ),
    (
        "engine.DEBT_PERCENT",
        "25",
        "Percent of what merging saves for which there must be cover.",
    ),
    (
        "engine.CHEAP_PART",
        "2",
        (
            "Divisor of the free swap that gives what the host gains by it at least, where that is "
            "compressed memory. It holds what is swapped out in a third of its size (kernel: "
            "admin-guide/blockdev/zram)."
        ),
    ),
    (
        "engine.EASE",
        "1.6",
        "Reserves up to which a short host takes memory back: with so many it is short no more.",
    ),
    (
        "engine.EXPOSED",
        "2",
        "Times what is free that guests may touch unasked: they do not all do so at once.",
    ),
    (
        "engine.PLENTY",
        "2.75",
        (
            "Reserves that stay available where memory that no guest needs is given out. SLACK "
            "begins at 2.5: a host that gave out all down to there would ask for the same memory "
            "back, and so on for ever."
        ),
    ),
    (
        "goals.LEAP",
        "2",
        (
            "Times the recent growth of its use that a guest which fills up is given beyond what it"
            " wants. So a guest that takes all it gets has twice as much each time."
        ),
    ),
    (
        "goals.LEAP_PART",
        "4",
        (
            "Divisor of a guest's maximum: no leap is larger, and where there is much to spare none"
            " is smaller."
        ),
    ),
    (
        "goals.LEAP_SPARE",
        "4",
        "Times the largest leap that must be spare to count as much to spare.",
    ),
    (
        "goals.CACHE_PART",
        "8",
        (
            "Divisor of what a guest has: a guest that reads the same files again is given so much "
            "more, to see whether that helps."
        ),
    ),
    (
        "goals.POSITION_PART",
        "16",
        "Divisor of what a guest has: less free memory than this is not worth a command.",
    ),
    (
        "goals.PLENTY_PART",
        "8",
        (
            "Divisor of what there is plenty of: a guest starts with so much, or its minimum. More "
            "guests may be about to start."
        ),
    ),
    (
        "goals.BEGUN",
        "1",
        "Reports after which a guest's use decides its size, and no longer what it starts with.",
    ),
    (
        "goals.STARTS",
        "5.0",
        "Seconds for which a guest counts as new to the agent.",
    ),
    (
        "goals.SILENT",
        "30.0",
        (
            "Seconds after which a guest that does not report what it uses is given all of its "
            "memory back."
        ),
    ),
    (
        "goals.STRIDE_PART",
        "4",
        (
            "Divisor of a guest's maximum: at most so much free memory goes into the balloon at "
            "once. The guest runs on meanwhile, and a driver that finds nothing free drops page "
            "cache."
        ),
    ),
    (
        "goals.COOL",
        "30.0",
        "Seconds after a shrink for which a guest is given more only if little is available in it.",
    ),
    (
        "goals.GROWTH",
        (
            "release: maximum, released: it was reset, rescue: demand, short of memory, need: "
            "demand, it needs more, minimum: minimum, below its minimum, cache: demand, it reads "
            "files again and again, habit: demand, it usually needs more at this hour, plenty: "
            "entitlement, there is plenty"
        ),
        "What bounds a growth of each kind, and its reason where no other is given.",
    ),
    (
        "habits.HOUR",
        "3600.0",
        "Seconds of an hour.",
    ),
    (
        "habits.HOURS",
        "24",
        "Hours of a day.",
    ),
    (
        "habits.MINUTES",
        "60",
        "Minutes of an hour.",
    ),
    (
        "habits.DAYS",
        "14",
        (
            "Days for which it is kept what guests used: two of each weekday, one of which may be a"
            " holiday."
        ),
    ),
    (
        "habits.LEAST_MINUTES",
        "10",
        (
            "Least minutes of an hour in which a guest must run: with less, nothing is learned of "
            "that hour."
        ),
    ),
    (
        "habits.LEAD_PART",
        "12",
        (
            "Divisor of an hour that gives 5 minutes: the next hour counts as well for so long "
            "before it, and for so long a guest counts as one that has just started."
        ),
    ),
    (
        "habits.USUAL_PERCENT",
        "90",
        "Percent of the minutes of an hour in which a guest used its `usual` size or less.",
    ),
    (
        "habits.STARTS",
        "5",
        "Last starts of a guest that count for what it uses at a start.",
    ),
    (
        "habits.CHANGED_PART",
        "8",
        (
            "Divisor of a guest's maximum: where two maxima differ by more, what was learned does "
            "not hold."
        ),
    ),
    (
        "habits.LARGEST",
        "1152921504606846976",
        "Bytes: a size in the file that is larger is wrong.",
    ),
    (
        "habits.LATEST",
        "1099511627776.0",
        "Seconds since 1970: a clock that shows more is wrong.",
    ),
    (
        "habits.NOTHING",
        "None, None, 0",
        "`usual`, `peak` and `days` of the `Habit` at an hour of which nothing is known.",
    ),
    (
        "habits.VOID",
        "frozen, implausible",
        "Verdicts of guests whose use is not learned.",
    ),
    (
        "host.CALM",
        "30.0",
        "Seconds for which all must be well before the host leaves a state for a better one.",
    ),
    (
        "host.BURST_WINDOW",
        "10.0",
        "Seconds within which growth counts as one burst.",
    ),
    (
        "host.BURST_MEMORY",
        "600.0",
        "Seconds after which a burst is forgotten.",
    ),
    (
        "host.BURST_PERCENT",
        "10",
        "Most percent of the host's memory that are kept against bursts.",
    ),
    (
        "host.SWAPPING",
        "1 MiB",
        "Bytes a second: a host that reads back more from swap swapped out what was needed.",
    ),
    (
        "host.SLACK_BEGINS",
        "2.5",
        "Reserves available: with so many, memory that guests do not need may be given out.",
    ),
    (
        "host.SOFT_BEGINS",
        "1.25",
        "Reserves available: with less, guests give what they do not use.",
    ),
    (
        "host.HARD_BEGINS",
        "0.75",
        "Reserves without what is kept against bursts: with less available, the host is in HARD.",
    ),
    (
        "host.CRITICAL_BEGINS",
        "0.4",
        (
            "Reserves without what is kept against bursts: with less available, the host is in "
            "CRITICAL."
        ),
    ),
    (
        "host.SOFT_ENDS",
        "1.6",
        "Reserves available: with so many, guests no longer have to give what they do not use.",
    ),
    (
        "host.THRASHING",
        "20.0",
        (
            "Percent of the time in which all tasks wait for memory: with so much, the host's swap "
            "is too slow for what is asked of it."
        ),
    ),
    (
        "host.STILL_THRASHING",
        "10.0",
        (
            "Percent of the time in which all tasks wait for memory: a host that thrashes does so "
            "until it is below this."
        ),
    ),
    (
        "host.RELEVANT",
        "2.5",
        (
            "Times the reserve: with so much available, tasks that stall lack memory for another "
            "reason."
        ),
    ),
    (
        "host.PLAIN",
        "5.0",
        (
            "Seconds after which the host leaves a state where its numbers call for one two steps "
            "better."
        ),
    ),
    (
        "host.VISIBLE",
        "1.0",
        "Seconds over which a rate of stalls must be taken to tell anything.",
    ),
    (
        "judgement_cache.MANY",
        "50",
        (
            "Guests from which on judgements are kept: with fewer, to watch costs more than to "
            "judge anew."
        ),
    ),
    (
        "ksm.CAMPAIGN_SCANS",
        "3",
        "Full scans after which a campaign is judged by what merging gained.",
    ),
    (
        "ksm.CAMPAIGN_SECONDS",
        "900.0",
        "Seconds after which a campaign is judged, where its scans take long.",
    ),
    (
        "ksm.LITTLE",
        "4 MiB",
        "A campaign that gained less than this was in vain.",
    ),
    (
        "ksm.LITTLE_PERMILLE",
        "1",
        "Permille of the host's memory: a campaign that gained less than this was in vain, too.",
    ),
    (
        "ksm.REST",
        "300.0",
        "Seconds without merging after a campaign in vain.",
    ),
    (
        "ksm.LONGEST_REST",
        "3600.0",
        "Seconds; `REST` is doubled up to here.",
    ),
    (
        "ksm.GREW_PERCENT",
        "10",
        (
            "Percent by which the cost of all guests has grown since ksmd went to rest: there is "
            "something new to merge."
        ),
    ),
    (
        "ksm.COW_SLOW",
        "0.005",
        (
            "Part of the host's memory that is copied a minute, from which on merging goes at half "
            "the speed."
        ),
    ),
    (
        "ksm.COW_REST",
        "0.02",
        (
            "Part of the host's memory that is copied a minute, because guests write to what is "
            "merged, from which on ksmd rests."
        ),
    ),
    (
        "ksm.COW_WINDOW",
        "10.0",
        "Seconds over which copies are counted.",
    ),
    (
        "ksm.CPU_WINDOW",
        "10.0",
        "Seconds over which ksmd's share of a core is measured.",
    ),
    (
        "ksm.LEAST_PACE",
        "0.01",
        "Part of a preset's speed below which ksmd is not slowed down.",
    ),
    (
        "ksm.BELOW",
        "0.9",
        "Part of its CPU share that ksmd is slowed down to where it took more than its share.",
    ),
    (
        "ksm.FASTER",
        "1.25",
        (
            "Factor by which ksmd's speed is raised again where it takes less than half of its CPU "
            "share."
        ),
    ),
    (
        "ksm.GIVE_UP",
        "2",
        (
            "Changes by another program, or refusals by the kernel, after which merging is left to "
            "others."
        ),
    ),
    (
        "ksm.EFFORT",
        "SLACK: quiet, BALANCED: quiet, SOFT: balanced, HARD: eager, CRITICAL: eager",
        "The preset of KSM, by the state of the host.",
    ),
    (
        "progress.STALL",
        "5.0",
        "Seconds within which a guest that was asked for memory must have moved.",
    ),
    (
        "progress.LEAST_MOVE",
        "4 MiB",
        "Least that a guest must give within `STALL` seconds: less is no movement.",
    ),
    (
        "progress.LEAST_MOVE_PERCENT",
        "10",
        (
            "Percent of what a guest was asked for that it must give within `STALL` seconds: less "
            "is no movement."
        ),
    ),
    (
        "progress.WILLING",
        "16 MiB",
        (
            "Bytes a second: a guest that gives so much moves, however much it was asked for. "
            "Without KVM, drivers reach some 300 MiB a second, and tens of GiB take minutes."
        ),
    ),
    (
        "progress.REST",
        "60.0",
        (
            "Seconds for which a guest is not asked after a stall; twice as long after each that "
            "follows."
        ),
    ),
    (
        "progress.SPENT",
        "10.0",
        (
            "Seconds for which a guest is not asked after a stall where next to nothing is "
            "available in it: it may have something to give again as soon as one of its programs "
            "ends."
        ),
    ),
    (
        "progress.LONGEST_REST",
        "900.0",
        "Most seconds for which a guest is not asked after a stall: `REST` is doubled up to here.",
    ),
    (
        "progress.BOOTS",
        "120.0",
        (
            "Seconds for which a guest that never reported may have no driver yet: its firmware and"
            " its kernel start first."
        ),
    ),
    (
        "progress.STALL_MEMORY",
        "600.0",
        "Seconds for which a stall is counted.",
    ),
    (
        "progress.OVERHEAD",
        "256 MiB",
        "What a QEMU process may cost beside the guest's memory: devices, and TCG's translations.",
    ),
    (
        "progress.SUSPECT_PERCENT",
        "5",
        (
            "Percent above what a guest has and `OVERHEAD`: a guest that costs more took back what "
            "it gave."
        ),
    ),
    (
        "progress.TRIAL",
        "128 MiB",
        "Least size of a shrink that tells whether it frees anything.",
    ),
    (
        "progress.YIELD_PERCENT",
        "25",
        (
            "Percent of a shrink that the host must gain: where less is freed, the balloon does "
            "nothing."
        ),
    ),
    (
        "progress.FRUITLESS",
        "2",
        "Shrinks in a row that freed nothing, after which a guest's balloon is ineffective.",
    ),
    (
        "progress.UNDER_WAY",
        "5.0",
        (
            "Seconds for which a guest may go on towards its target before the last. Its driver "
            "reads the target only between two batches, and the size that is known of the guest is "
            "some time old."
        ),
    ),
    (
        "progress.GRANT_MEMORY",
        "30.0",
        (
            "Seconds for which what a guest was given counts as granted: what it has not touched by"
            " then counts as any other idle memory."
        ),
    ),
    (
        "reach.DOWN_PERCENT",
        "SLACK: 5, BALANCED: 5, SOFT: 5, HARD: 10, CRITICAL: 25",
        (
            "Percent of its maximum that a guest is shrunk by a second. Proxmox takes 100 MiB in 10"
            " s, which is why bursts kill there."
        ),
    ),
    (
        "reach.LEAST_STEP",
        "16 MiB",
        "Least that a guest is shrunk by a second, however small it is.",
    ),
    (
        "reach.STEPS",
        "2",
        "Most steps of a second by which a target may be below what the guest has touched.",
    ),
    (
        "reach.UNTOUCHED",
        "96 MiB",
        (
            "Most of what a guest has beyond what the host holds for it that a step skips at once: "
            "nothing is freed on that part of the way."
        ),
    ),
    (
        "reach.NEW",
        "60.0",
        (
            "Seconds after its QEMU started for which a guest is about to boot, or has just done "
            "so: where many start at once, QEMU itself takes long to answer."
        ),
    ),
    (
        "reach.COOL_AFTER_GROWTH",
        "60.0",
        "Seconds for which a guest that was given memory is not asked to give it back.",
    ),
    (
        "reach.TELLS",
        "1.0",
        "Seconds after a guest was told to give, from which on a report says what that cost it.",
    ),
    (
        "reach.GROWING_PERCENT",
        "5",
        (
            "Percent of its maximum: a guest that uses so much more than in the 10 s before is "
            "growing."
        ),
    ),
    (
        "reach.LEFT_PERCENT",
        "75",
        (
            "Percent of its maximum that are left to a guest that cannot take memory back by "
            "itself. A guest that used 115 of its 512 MiB, was left 179 and needed 250 more at once"
            " lost the program that asked for them."
        ),
    ),
    (
        "reach.MOVABLE",
        "normal",
        "Verdicts of guests that may be asked to give memory.",
    ),
    (
        "reach.DEPTHS",
        (
            "SLACK: idle, BALANCED: idle, SOFT: idle, modest, HARD: idle, modest, bare, CRITICAL: "
            "idle, modest, bare, minimum"
        ),
        "What is taken of guests in each state of the host, from the first to the last.",
    ),
    (
        "reclaim.VERDICTS",
        "ineffective, stale, uncooperative",
        (
            "Verdicts of guests whose balloons give nothing, or of which it is not known what they "
            "could give."
        ),
    ),
    (
        "reclaim.STALLS",
        "2",
        "Stalls in a row after which a guest counts as one that has stalled for long.",
    ),
    (
        "reclaim.PAUSE",
        "3.0",
        (
            "Seconds between two steps: by then it is known what the last one did "
            "(`agent.cgroup_usage` reads all cgroups within 2 s)."
        ),
    ),
    (
        "reclaim.STEP_PERCENT",
        "6",
        (
            "Percent of the maximum that a step reclaims; twice as much in HARD and CRITICAL, and "
            "half as much after each rest."
        ),
    ),
    (
        "reclaim.LEAST_STEP",
        "4 MiB",
        "Least size of a step: less is not worth one.",
    ),
    (
        "reclaim.SWAP_KEPT",
        "4",
        "Divisor of the host's swap that gives what stays free of it: what a burst needs.",
    ),
    (
        "reclaim.OVERHEAD",
        "64 MiB",
        (
            "What a guest's cgroup holds beside its memory: QEMU itself, 62 MiB measured. That "
            "counts as in use, so that the minimum is left of the guest's memory alone."
        ),
    ),
    (
        "reclaim.WATCHED",
        "10.0",
        "Seconds after a step for which what the guest suffers counts as caused by it.",
    ),
    (
        "reclaim.STALL_PERCENT",
        "1.0",
        (
            "Percent of the time: a guest that waits more for memory after a step suffers. glib's "
            "lowest warning is at 3.5 %, TMO aims at 0.1 % over minutes; a round sees a few "
            "seconds."
        ),
    ),
    (
        "reclaim.REFAULTS",
        "1 MiB",
        "Bytes a second: a guest that reads back more of what was just reclaimed suffers.",
    ),
    (
        "reclaim.YIELD_PERCENT",
        "25",
        (
            "Percent of a step that must come free: less does where memory is locked, or the cgroup"
            " may not swap."
        ),
    ),
    (
        "reclaim.REST",
        "60.0",
        (
            "Seconds for which nothing is reclaimed of a guest that suffered, or of which nothing "
            "came free; twice as long after each rest that follows."
        ),
    ),
    (
        "reclaim.LONGEST_REST",
        "900.0",
        (
            "Most seconds for which nothing is reclaimed of such a guest: `REST` is doubled up to "
            "here."
        ),
    ),
    (
        "shares.LEAST_ACTIVE",
        "0.05",
        "Least part of its memory that a guest counts as working with.",
    ),
    (
        "tracked_numbers.MARGIN",
        "1e-06",
        (
            "Seconds before and after a limit for which no answer is kept: differences of times are"
            " rounded."
        ),
    ),
)
"""The name, as in ``allocation.REVOKED_PERCENT``; the value; what it is and where it is from."""
