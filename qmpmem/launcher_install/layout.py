"""What stands where an emulator's command is looked for, and what launching means to do about it.

The command is kvm; the administrator may name others. All names are as seen inside the root:
``/usr/bin/kvm`` is ROOT/usr/bin/kvm.
"""

from typing import Final, Literal

from qmpmem.records import Record

KVM: Final = "/usr/bin/kvm"
"""The command that Debian's qemu-system-x86 brings, a link to qemu-system-x86_64."""


def aside_of(command: str) -> str:
    """Return where the real command goes.

    It stays in its directory, because kvm is a relative link, and its name still ends in kvm,
    because QEMU picks its default accelerator by that (QEMU: softmmu/vl.c, configure_accelerators).
    dpkg-divert's own default, kvm.distrib, would turn KVM off.
    """
    directory, _, name = command.rpartition("/")
    return f"{directory}/distrib-{name}"


ASIDE: Final = aside_of(KVM)
"""The path at which the real kvm is kept while the launcher is installed."""

PACKAGE: Final = "qmpmem"
"""The package name under which we divert; `dpkg-divert --list` shows it."""

OLD_ASIDE: Final = "/usr/bin/kvm.real"
"""Where a well-known old recipe puts the real kvm, which turns KVM off: its name does not end in
kvm."""

LIBRARY: Final = "/usr/lib/qmpmem"
"""The directory of the launchers' copies, so that kvm outlives any virtual environment. Each
version has a directory of its own there, which its wrapper names: see `wrapper`."""

BIN: Final = f"{LIBRARY}/bin"
"""A directory to put first on PATH: it holds the launcher by the name of each emulator."""

NAMES: Final = f"{LIBRARY}/distrib"
"""A directory of links to emulators that were set aside: NAMES/kvm leads to the real one. The
kernel
calls a process by the last part of the path that was executed (proc(5): comm), so the launcher
executes the link that has its own name (launchers/kvm: keep_name). Without it, guests start as
ever."""

Program = Literal["missing", "broken", "real", "wrapper", "changed", "linked", "old-recipe"]
"""What answers to the name of the command:

missing     nothing
broken      a link to nothing, or no program
real        another package's program: an emulator, as far as we can tell
wrapper     our launcher, as installed
changed     our launcher, edited by hand since
linked      a link to a launcher of ours, made by hand
old-recipe  a script that runs kvm.real
"""


class Layout(Record, frozen=True):
    """What was seen under a root of one command."""

    kvm: Program
    command: str = KVM
    """The command. Where it is not kvm, the fields about kvm are about this command all the
    same."""
    root: str = ""
    """The path that comes before every name; empty for the host itself."""
    latest: bool = False
    """Whether the wrapper in place is the one that this version installs."""
    aside: bool = False
    """Whether there is a distrib-kvm."""
    twins: bool = False
    """Whether kvm and distrib-kvm are the same: one inode, two links to one name, or equal
    bytes."""
    diversion: str | None = None
    """Where dpkg is told to put packages' kvm; None where there is no diversion."""
    diverted_by: str | None = None
    """The package that told dpkg of the diversion, LOCAL for the administrator; None where there is
    no diversion."""
    dpkg: bool = False
    """Whether there is a dpkg database that can be told of a diversion."""
    library: Literal["missing", "outdated", "latest"] = "missing"
    """Whether the launchers' copy that this version installs is there, or only others are."""
    older: bool = False
    """Whether there are copies of the launchers of other versions."""
    scripts: Literal["missing", "outdated", "latest"] = "missing"
    """Whether BIN holds the scripts of this version, one for each emulator that is there now."""
    named: bool = False
    """Whether `NAMES` has the link for the command."""
    others: bool = False
    """Whether there are emulators by other names, so that BIN is of use where there is no kvm."""
    script: Literal["none", "plain", "opaque"] = "none"
    """Whether the real kvm is a script, and if so, whether what it runs is plain to see."""

    @property
    def diverted(self) -> bool:
        """Tell whether the diversion is ours."""
        return self.diverted_by == PACKAGE and self.diversion == aside_of(self.command)

    @property
    def foreign(self) -> bool:
        """Tell whether another package, or the administrator, diverts kvm."""
        return self.diverted_by is not None and not self.diverted

    @property
    def traces(self) -> bool:
        """Tell whether something of ours is there, so that a distrib-kvm is ours, too."""
        copies = (self.library, self.scripts)
        return self.kvm == "wrapper" or self.diverted or copies != ("missing", "missing")

    @property
    def stands(self) -> bool:
        """Tell whether the launcher has a command to stand in the place of."""
        return self.kvm != "missing" or self.orphaned

    @property
    def orphaned(self) -> bool:
        """Tell whether our launcher was removed by hand, and the emulator is still aside."""
        return self.kvm == "missing" and self.aside and self.traces


PutsInPlace = Literal[
    "copy-launchers", "divert", "set-aside", "keep-name", "place-wrapper", "place-scripts"
]
TakesBack = Literal[
    "drop-older",
    "put-back",
    "undivert",
    "drop-aside",
    "remove-wrapper",
    "remove-scripts",
    "remove-launchers",
]
Action = PutsInPlace | TakesBack

TEXTS: Final[dict[Action, str]] = {
    "copy-launchers": f"copy the launchers to {LIBRARY}",
    "divert": "tell dpkg to put packages' {command} at {aside}",
    "set-aside": "give {command} the second name {aside}",
    "keep-name": f"link {NAMES}/{{name}} to the real one, so that processes are called {{name}}",
    "place-wrapper": "put the launcher at {command}",
    "place-scripts": f"put the launcher into {BIN}, by the name of each emulator",
    "drop-older": f"remove the launchers of other versions from {LIBRARY}",
    "put-back": "put {aside} back at {command}",
    "undivert": "tell dpkg to put packages' {command} at {command} again",
    "drop-aside": "remove the second name {aside}",
    "remove-wrapper": "remove the launcher at {command}: there is no emulator left to put back",
    "remove-scripts": f"remove {BIN}",
    "remove-launchers": f"remove the launchers from {LIBRARY}",
}

_PAST: Final = {
    "copy": "copied",
    "give": "gave",
    "link": "linked",
    "put": "put",
    "remove": "removed",
    "tell": "told",
}


class Step(Record, frozen=True):
    """One change, done whole or not at all."""

    action: Action
    command: str = KVM

    @property
    def text(self) -> str:
        """Return what the step does, for people: ``copy the launchers``."""
        return TEXTS[self.action].format(
            command=self.command, aside=aside_of(self.command), name=self.command.rpartition("/")[2]
        )

    @property
    def done(self) -> str:
        """Return what the step did: ``copied the launchers``."""
        verb, space, rest = self.text.partition(" ")
        return f"{_PAST[verb]}{space}{rest}"


State = Literal["absent", "installed", "outdated", "partial", "blocked"]


class Note(Record, frozen=True):
    """Something that guests lack, in a line, and what to do about it."""

    about: str
    """What the note is about, in a word or two."""
    problem: str
    hint: str


class LauncherStatus(Record, frozen=True):
    """Whether kvm is our launcher. The field names are the keys of ``--json``."""

    state: State
    """absent     nothing of ours is there
    installed  kvm is the launcher of this version
    outdated   kvm is the launcher of another version
    partial    an install or uninstall was cut off; kvm works; either command finishes
    blocked    a change that is not ours is in the way, see problem"""
    root: str
    kvm: str
    emulator: str | None
    """The emulator that runs in the end: distrib-kvm, or kvm where we are not in place."""
    launchers: str | None
    scripts: str | None
    """The directory to put first on PATH; None where it is missing."""
    method: Literal["dpkg-divert", "rename"]
    problem: str | None = None
    hint: str | None = None
    also: tuple[str, ...] = ()
    """Other commands in whose place the launcher stands."""
    notes: tuple[Note, ...] = ()
    """What guests lack although the launcher is, or will be, in place."""
