"""Commands around starting guests: run, launcher."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qmpmem.cli.app import app, describe, put, put_json, say, seconds, usage, warn
from qmpmem.cli.show_guests import Json, show_pairs
from qmpmem.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qmpmem.launcher_install import Step

launcher = typer.Typer(
    help="Put the launcher in the place of kvm, or take it away again.",
    rich_markup_mode=None,
    epilog=usage("qmpmem launcher install", "qmpmem launcher status"),
)
app.add_typer(launcher, name="launcher")


def size_or_percent(text: str) -> str:
    """Check a size, or a part of a guest's memory, that an option takes: ``512M``, ``25%``."""
    from qmpmem.configuration import keys, value_types

    kind = keys.find(keys.GUEST, "current").kind
    try:
        kind.read(text)
    except value_types.UnfitError as error:
        why = f" ({error})" if str(error) else ""
        problem = f"size {text!r}: expected {kind.expected}{why}"
        raise typer.BadParameter(problem) from error
    return text


@app.command(
    epilog=usage(
        "qmpmem run --name web1 -- -m 2G -drive file=web1.qcow2",
        "qmpmem run --current 512M -- -m 2G",
        "qmpmem run --reserve 2G -- -m 2G",
    ),
    context_settings={"allow_extra_args": True, "allow_interspersed_args": False},
)
def run(
    arguments: Annotated[
        list[str], typer.Argument(metavar="-- QEMU-ARGS", help="What the kvm command takes.")
    ],
    *,
    name: Annotated[str | None, typer.Option(help="The guest's name: -name.")] = None,
    current: Annotated[
        str | None,
        typer.Option(
            parser=size_or_percent,
            metavar="SIZE|PERCENT",
            help="What it starts with, of its memory: 512M, 25%. It takes more as it needs it.",
        ),
    ] = None,
    mode: Annotated[
        Literal["balloon", "static"] | None,
        typer.Option(help="balloon, or static: all memory up front, never ballooned or merged."),
    ] = None,
    ksm: Annotated[
        Literal["on", "off"] | None, typer.Option(help="May equal pages be merged?")
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="Guests of different domains do not trust each other.")
    ] = None,
    cgroup: Annotated[
        bool, typer.Option("--cgroup", help="Give it a cgroup of its own, where that may be.")
    ] = False,
    reserve: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Have the agent make so much room for it first."),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(parser=seconds, metavar="TIME", help="How long that may take."),
    ] = 30.0,
    json: Annotated[
        bool, typer.Option("--json", help="First a line of JSON: the process that it becomes.")
    ] = False,
) -> None:
    """Start a guest through the launcher.

    Whether or not that stands in the place of kvm. KVM is used where it is really usable, unless
    the arguments say otherwise. This process becomes the guest.
    """
    from qmpmem.files import launcher_paths

    _take_words_as_given()
    has_parent = os.environ.get("QMPMEM_CGROUP", "").startswith("/")
    keys = {
        "QMPMEM_CURRENT": current,
        "QMPMEM_MODE": mode,
        "QMPMEM_KSM": ksm,
        "QMPMEM_DOMAIN": domain,
        "QMPMEM_CGROUP": "on" if cgroup and not has_parent else None,
    }
    environment = os.environ | {key: value for key, value in keys.items() if value}
    words = [*(["-name", f"guest={name.replace(',', ',,')}"] if name else []), *arguments]
    command = launcher_paths.launchers_directory() / "kvm"
    lease = None
    if reserve is not None:
        from qmpmem.cli.agent import make_room

        lease = make_room(reserve, timeout)
    if json:
        put_json({"pid": os.getpid(), "name": name, "lease": lease})
    try:
        os.execve(command, ["kvm", *words, *_acceleration(arguments)], environment)  # noqa: S606 - becoming the guest is the point
    except OSError as error:
        raise LaunchError(f"{command}: {error.strerror}") from error


@app.command(
    epilog=usage('eval "$(qmpmem env)"', "qmpmem env -- make test-guests"),
    context_settings={"allow_extra_args": True, "allow_interspersed_args": False},
)
def env(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND", help="A program that starts QEMU.")
    ] = None,
) -> None:
    """Run a program whose QEMUs go through the launcher.

    A directory is put first on PATH that has the launcher by the name of each emulator, such as
    qemu-system-x86_64. Without a command, print the line that does so in a shell.
    """
    import shlex

    from qmpmem import launcher_install

    _take_words_as_given()
    directory = launcher_install.for_path(launcher_install.site(), os.environ)
    if not command:
        put(f'export PATH={shlex.quote(str(directory))}:"$PATH"')
        return
    environment = os.environ | {"PATH": f"{directory}:{os.environ['PATH']}"}
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - becoming it is the point
    except OSError as error:
        raise LaunchError(f"{command[0]}: {error.strerror}") from error


Root = Annotated[
    Path,
    typer.Option(metavar="DIR", help="The root of a system that does not run, such as an image."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, do nothing.")]


@launcher.command(
    epilog=usage(
        "qmpmem launcher install --dry-run",
        "qmpmem launcher install --also qemu-system-x86_64",
    )
)
def install(
    *,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="In the place of another emulator, too: qemu-system-x86_64."
        ),
    ] = None,
    root: Root = Path("/"),
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Put the launcher in the place of kvm. Can be repeated; upgrades of QEMU keep working."""
    from qmpmem import launcher_install

    where, others = launcher_install.site(root.absolute()), also or []
    steps = (
        launcher_install.install(where, others, dry_run=True)
        if dry_run
        else launcher_install.installing(where, others)
    )
    _show_steps(steps, "installed already", dry_run=dry_run, json=json)
    for note in launcher_install.status(where).notes:
        warn(f"{note.problem}; {note.hint}")


@launcher.command(epilog=usage("qmpmem launcher uninstall"))
def uninstall(*, root: Root = Path("/"), dry_run: DryRun = False, json: Json = False) -> None:
    """Put kvm back as it was, to the byte."""
    from qmpmem import launcher_install

    where = launcher_install.site(root.absolute())
    steps = (
        launcher_install.uninstall(where, dry_run=True)
        if dry_run
        else launcher_install.uninstalling(where)
    )
    if _show_steps(steps, "nothing of ours is there", dry_run=dry_run, json=json):
        say(launcher_install.SNAPSHOTS)


@launcher.command(epilog=usage("qmpmem launcher status"))
def status(*, root: Root = Path("/"), json: Json = False) -> None:
    """Show whether kvm is the launcher."""
    from qmpmem import launcher_install
    from qmpmem.view import rows

    seen = launcher_install.status(launcher_install.site(root.absolute()))
    if json:
        put_json(seen)
        return
    shown = (
        ("state", seen.state),
        ("kvm", seen.kvm),
        ("emulator", seen.emulator or rows.UNKNOWN),
        ("launchers", seen.launchers or rows.UNKNOWN),
        ("also", ", ".join(seen.also) or rows.UNKNOWN),
        ("for PATH", seen.scripts or rows.UNKNOWN),
        ("method", seen.method),
        *([("problem", seen.problem)] if seen.problem else []),
        *([("to do", seen.hint)] if seen.hint else []),
        *(pair for note in seen.notes for pair in (("but", note.problem), ("to do", note.hint))),
    )
    show_pairs(shown)


def _show_steps(steps: "Iterable[Step]", none: str, *, dry_run: bool, json: bool) -> bool:
    """Write each step when it is done: a run that is cut off has then shown how far it came.

    Returns:
        Whether there was any.
    """
    if json:
        return _steps_as_json(steps, dry_run=dry_run)
    idle = True
    for step in steps:
        put(f"would {step.text}" if dry_run else step.done)
        idle = False
    if idle:
        put(none)
    return not idle


def _steps_as_json(steps: "Iterable[Step]", *, dry_run: bool) -> bool:
    """Write all steps as one object, and with them the failure that cut them off."""
    done: list[str] = []
    failure: LaunchError | None = None
    try:
        done.extend(step.text if dry_run else step.done for step in steps)
    except LaunchError as error:
        failure = error
    document = {"changed": bool(done) and not dry_run, "dry_run": dry_run, "done": done}
    put_json(document if failure is None else {**document, "error": describe(failure)})
    if failure is not None:
        raise failure
    return bool(done)


def _take_words_as_given() -> None:
    """Begin anew in UTF-8 mode where this process may not know its words byte for byte.

    In the locales of some old encodings Python writes other bytes than the C library has read, or
    none (PEP 540: UTF-8 mode has neither).
    """
    if sys.flags.utf8_mode or sys.getfilesystemencoding() == "utf-8":
        return
    try:
        python, *words, _ = Path("/proc/self/cmdline").read_bytes().split(b"\0")
        os.execv(sys.executable, [python, b"-X", b"utf8", *words])  # noqa: S606 - the same program
    except OSError as error:
        say(f"words that are not ASCII may not arrive: {error.strerror}")


def _acceleration(words: list[str]) -> list[str]:
    """Ask for emulation by an argument where KVM cannot work and the arguments leave it open.

    QEMU itself only looks whether /dev/kvm opens, and hangs where the processor has no extensions.
    """
    from qmpmem.wire import kvm

    return [] if kvm.usable(Path("/")).usable or _is_settled(words) else ["-accel", "tcg"]


def _is_settled(words: list[str]) -> bool:
    """Tell whether the arguments stay: they choose an accelerator, or are not understood.

    The launcher knows QEMU's option grammar, so it is asked.
    """
    from qmpmem.files import launcher_paths

    sys.path.append(str(launcher_paths.launchers_directory().parent))
    from launchers.kvm_launch import read_configs
    from launchers.kvm_options import Line

    line = Line(words, list(read_configs(Line(words))))
    return (
        line.options.unknown is not None
        or line.unread > 0
        or line.options.has("accel", "enable-kvm", "no-kvm", "enable-hax")
        or "accel" in line.machine
        or any(section.group == "accel" for section in line.sections)
    )
