"""Commands about kernel samepage merging: `qmpmem ksm ...`."""

import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qmpmem.cli import signals
from qmpmem.cli.app import app, on_terminal, put, put_json, run_async, say, seconds, usage, warn
from qmpmem.cli.show_guests import (
    Json,
    Watch,
    live_guests,
    put_lines,
    screen_width,
    show_pairs,
    show_table,
)
from qmpmem.errors import NotReached

if TYPE_CHECKING:
    from qmpmem.ksm.apply import KsmWriter
    from qmpmem.ksm.rules import Write
    from qmpmem.ksm.status_report import KsmSource
    from qmpmem.model.ksm import KsmState

ksm = typer.Typer(
    help="See, steer and judge the merging of equal pages (KSM).",
    rich_markup_mode=None,
    epilog=usage("qmpmem ksm status", "qmpmem ksm on --preset balanced", "qmpmem ksm restore"),
)
app.add_typer(ksm, name="ksm")
service = typer.Typer(
    help="The systemd unit that sets KSM up when the host starts.",
    rich_markup_mode=None,
    epilog=usage("qmpmem ksm service install", "qmpmem ksm service status"),
)
ksm.add_typer(service, name="service")

Preset = Literal["quiet", "balanced", "eager"]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and say, change nothing.")]
Root = Annotated[Path, typer.Option(metavar="DIR", help="Another file system root.")]
AcrossDomains = Annotated[
    bool, typer.Option("--across-domains", help="Though guests that differ in domain may merge.")
]
SLASH = Path("/")


@ksm.command(epilog=usage("qmpmem ksm status", "qmpmem ksm status --watch 5s"))
def status(
    *,
    json: Json = False,
    watch: Watch = None,
    until_settled: Annotated[
        bool, typer.Option("--until-settled", help="Watch until the saving no longer grows.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(parser=seconds, metavar="TIME", help="At most so long.")
    ] = 600.0,
    root: Root = SLASH,
) -> None:
    """Show what merging does, and what it costs. Whether it is worth it, and each guest's part.

    With --until-settled, exits 1 where the saving still grows after --timeout.
    """
    from qmpmem.ksm import status_report
    from qmpmem.view import ksm as view
    from qmpmem.view import rows

    if until_settled:
        run_async(_until_settled(1.0 if watch is None else watch, timeout, _place(root), json=json))
        return
    if watch is not None:
        run_async(_watch(watch, _place(root), json=json))
        return
    report = run_async(status_report.survey(live_guests(), _place(root)))
    if json:
        put_json(report)
        return

    show_pairs(list(view.status_rows(report)))
    for warning in view.warnings(report):
        warn(warning)
    if report.guests:
        put("")
        table = [view.guest_row(guest) for guest in report.guests]
        names = [(guest.id, guest.name) for guest in report.guests]
        show_table(*rows.named(view.GUEST_HEADERS, table, names))


@ksm.command(epilog=usage("qmpmem ksm on --preset balanced", "qmpmem ksm on --dry-run"))
def on(
    *,
    preset: Annotated[Preset | None, typer.Option(help="How hard to try, as well.")] = None,
    across_domains: AcrossDomains = False,
    dry_run: DryRun = False,
    root: Root = SLASH,
    json: Json = False,
) -> None:
    """Merge equal pages of guests from now on."""
    _warn_of_rival(root)
    if not across_domains:
        _refuse_strangers(root)
    wanted = {} if preset is None else _settings(preset, root)
    _change({**wanted, "run": "1"}, root, dry_run=dry_run, json=json)


@ksm.command(epilog=usage("qmpmem ksm off"))
def off(*, dry_run: DryRun = False, root: Root = SLASH, json: Json = False) -> None:
    """Merge no more. What is merged stays so, until its owner writes to it."""
    _warn_of_rival(root)
    _change({"run": "0"}, root, dry_run=dry_run, json=json)


@ksm.command(epilog=usage("qmpmem ksm tune pages_to_scan=1000 sleep_millisecs=20"))
def tune(
    settings: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE", help="By the names of the kernel's files.")
    ],
    *,
    dry_run: DryRun = False,
    root: Root = SLASH,
    json: Json = False,
) -> None:
    """Set some of the kernel's knobs: all of them, or none."""
    from qmpmem.ksm import rules

    wanted = rules.parse(settings)
    _warn_of_rival(root)
    _change(wanted, root, dry_run=dry_run, json=json)


@ksm.command("preset", epilog=usage("qmpmem ksm preset quiet"))
def preset_(
    name: Annotated[Preset, typer.Argument(metavar="PRESET", help="quiet, balanced or eager.")],
    *,
    dry_run: DryRun = False,
    root: Root = SLASH,
    json: Json = False,
) -> None:
    """Choose how hard to try. Seldom and cheap, or at once and at any price."""
    _warn_of_rival(root)
    _change(_settings(name, root), root, dry_run=dry_run, json=json)
    if _writer(root).state().run != 1:
        say("KSM is off, so nothing is merged yet; `qmpmem ksm on`")


@ksm.command(epilog=usage("qmpmem ksm unmerge --dry-run", "qmpmem ksm unmerge"))
def unmerge(*, dry_run: DryRun = False, root: Root = SLASH, json: Json = False) -> None:
    """Take all merged pages apart, and merge no more. Only where there is memory for it."""
    from qmpmem.ksm import unmerge as apart
    from qmpmem.ksm.apply import KsmWriter
    from qmpmem.units import format_size
    from qmpmem.wire.kernel import host

    state = _writer(root).state()
    room = apart.room(state, host.memory(root))
    apart.check(room)
    if dry_run:
        if json:
            put_json({"dry_run": True, "unmerged": room.debt, "spare": room.spare})
        else:
            put(f"would unmerge {format_size(room.debt)}; {format_size(room.spare)} are to spare")
        return
    with _progress(state, shown=not json) as show, signals.by_exception():
        writer = KsmWriter(_directory(), root, apart.writer(root, show))
        done = writer.apply({"run": "2"})
    _say_problems(writer)
    if json:
        put_json({"dry_run": False, "unmerged": room.debt if done else 0, "spare": room.spare})
    else:
        put(f"unmerged {format_size(room.debt)}" if done else "nothing to change")


@ksm.command(epilog=usage("qmpmem ksm restore"))
def restore(
    *,
    across_domains: AcrossDomains = False,
    agents: Annotated[
        bool, typer.Option("--agents", help="Only what an agent left behind when it was killed.")
    ] = False,
    root: Root = SLASH,
    json: Json = False,
) -> None:
    """Put back what was there before qmpmem changed it, to the value."""
    writer = _writer(root)
    with signals.by_exception():
        done = writer.restore(
            None if across_domains else partial(_refuse_strangers, root), only_agents=agents
        )
    _say_problems(writer)
    if json:
        put_json({"dry_run": False, "writes": done.writes, "left": done.left})
    else:
        _show(done.writes, dry_run=False)
    for name, value in done.left.items():
        warn(f"{name} is {value}: another program changed it after us; left as it is")


@ksm.command(epilog=usage("qmpmem ksm boot --dry-run"))
def boot(*, dry_run: DryRun = False, root: Root = SLASH, json: Json = False) -> None:
    """Do what KSM_ENABLED and KSM_PRESET in /etc/default/qmpmem say."""
    from qmpmem.files import defaults
    from qmpmem.ksm import boot as at_boot

    found = defaults.load(os.environ, root)
    request = at_boot.read(found)
    if request.enabled is None:
        say(f"{found.path}: KSM_ENABLED is not set, so KSM is left as it is")
        if json:
            put_json({"dry_run": dry_run, "writes": []})
    elif request.enabled:
        on(
            preset=request.preset,
            across_domains=request.across_domains,
            dry_run=dry_run,
            root=root,
            json=json,
        )
    else:
        off(dry_run=dry_run, root=root, json=json)


@service.command(epilog=usage("qmpmem ksm service install"))
def install(*, root: Root = SLASH, json: Json = False) -> None:
    """Have systemd do `qmpmem ksm boot` at each start of the host. Can be repeated."""
    from qmpmem.cli.systemd_units import install_unit
    from qmpmem.ksm.systemd_unit import UNIT

    install_unit(UNIT, root, json=json)


@service.command(epilog=usage("qmpmem ksm service uninstall"))
def uninstall(*, root: Root = SLASH, json: Json = False) -> None:
    """Take that back. KSM stays as it is; `qmpmem ksm restore` puts it back."""
    from qmpmem.cli.systemd_units import uninstall_unit
    from qmpmem.ksm.systemd_unit import UNIT

    uninstall_unit(UNIT, root, json=json)


@service.command("status", epilog=usage("qmpmem ksm service status"))
def service_status(*, root: Root = SLASH, json: Json = False) -> None:
    """Show whether the unit is there, and whether it runs."""
    from qmpmem.cli.systemd_units import show_unit
    from qmpmem.ksm.systemd_unit import UNIT

    show_unit(UNIT, root, json=json)


def _change(wanted: Mapping[str, str], root: Path, *, dry_run: bool, json: bool) -> None:
    writer = _writer(root)
    with signals.by_exception():
        writes = writer.plan(wanted) if dry_run else writer.apply(wanted)
    _say_problems(writer)
    if json:
        put_json({"dry_run": dry_run, "writes": writes})
    else:
        _show(writes, dry_run=dry_run)


def _say_problems(writer: "KsmWriter") -> None:
    for problem in writer.problems:
        warn(problem)


def _show(writes: "Iterable[Write]", *, dry_run: bool) -> None:
    lines = [f"{write.name}: {write.before} → {write.after}" for write in writes]
    put_lines(f"{'would set ' if dry_run else ''}{line}" for line in lines)
    if not lines:
        put("nothing to change")


def _settings(preset: Preset, root: Path) -> dict[str, str]:
    from qmpmem.guests import inventory
    from qmpmem.ksm import presets, verdict
    from qmpmem.units import Bytes
    from qmpmem.wire.kernel import host

    state = _writer(root).state()
    resident = sum(inventory.rss(found.pid) or 0 for found in live_guests())
    looked_at = verdict.looked_at(state) * state.page_size
    # Before the first guest, as at boot: half of what the host has will be guests.
    expected = max(resident, looked_at) or (host.memory(root).total or 0) // 2
    return presets.settings(presets.PRESETS[preset], state, mergeable=Bytes(expected))


def _refuse_strangers(root: Path) -> None:
    from qmpmem.ksm import guest_savings, status_report

    seen = run_async(guest_savings.look(live_guests(), root))
    status_report.expect_one_domain(status_report.strangers(seen))


def _warn_of_rival(root: Path) -> None:
    from qmpmem.ksm import status_report

    rival = status_report.rival(root)
    if rival:
        warn(f"{rival} steers KSM as well, and will change it again; stop it first")


async def _until_settled(pause: float, timeout: float, place: "KsmSource", *, json: bool) -> None:  # noqa: ASYNC109 - the merging's time, not this call's
    import asyncio

    try:
        async with asyncio.timeout(timeout):
            await _watch(pause, place, json=json, until_settled=True)
    except TimeoutError as error:
        raise NotReached(
            f"the saving still grows after {timeout:g} s", hint="`qmpmem ksm status` shows it"
        ) from error


async def _watch(
    pause: float, place: "KsmSource", *, json: bool, until_settled: bool = False
) -> None:
    from qmpmem.ksm import status_report, verdict
    from qmpmem.units import Bytes
    from qmpmem.view import ksm as view

    if not json:
        put(view.watch_header(screen_width()))
    saved: list[Bytes] = []
    async for report in status_report.watch(live_guests, place, pause):
        if json:
            put_json(report)
        else:
            put(view.watch_line(report, screen_width()))
        saved = [*saved[-verdict.STEADY_LOOKS :], report.saved or Bytes(0)]
        judged = report.verdict
        if until_settled and (judged is None or verdict.has_settled(saved, judged)):
            if judged is not None and judged.word in verdict.RESTING:
                say(f"{judged.word}: {judged.why}")
            return


@contextmanager
def _progress(state: "KsmState", *, shown: bool) -> "Generator[Callable[[KsmState], None]]":
    """Draw a bar on a terminal, from all that is merged to nothing."""
    from qmpmem.ksm import verdict
    from qmpmem.units import Bytes

    if not (shown and on_terminal()):
        yield lambda _: None
        return
    from qmpmem.view.progress_bar import progress_bar

    with progress_bar("merged", verdict.saved(state), Bytes(0)) as show:
        yield lambda seen: show(verdict.saved(seen))


def _place(root: Path) -> "KsmSource":
    from qmpmem.ksm.status_report import KsmSource

    return KsmSource(_directory(), root)


def _writer(root: Path) -> "KsmWriter":
    from qmpmem.ksm.apply import KsmWriter

    return KsmWriter(_directory(), root)


def _directory() -> Path:
    from qmpmem.ksm import ledger

    return ledger.directory(os.environ)
