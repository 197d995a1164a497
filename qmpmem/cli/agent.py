"""Commands of the agent: `qmpmem agent` runs it, the others ask it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qmpmem.cli.app import app, put, put_json, put_plain, seconds, usage, warn
from qmpmem.cli.config import Given
from qmpmem.cli.show_guests import Json, Name, show_pairs, show_prose, show_table
from qmpmem.errors import AgentUnreachable, ConfigError
from qmpmem.guests import access, rundir

if TYPE_CHECKING:
    from qmpmem.api.client import Client
    from qmpmem.api.records import Why

agent = typer.Typer(
    help="Move memory to where it is needed. Ask why, plan, hold, pin.",
    rich_markup_mode=None,
    epilog=usage("qmpmem agent", "qmpmem agent --dry-run --config new.toml", "qmpmem agent status"),
)
app.add_typer(agent, name="agent")
policy = typer.Typer(
    help="The rules by which memory is shared out.",
    rich_markup_mode=None,
    epilog=usage("qmpmem agent policy show"),
)
agent.add_typer(policy, name="policy")
service = typer.Typer(
    help="The systemd unit that runs the agent.",
    rich_markup_mode=None,
    epilog=usage("qmpmem agent service install", "qmpmem agent service status"),
)
agent.add_typer(service, name="service")

DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and say, change nothing.")]
Size = Annotated[str, typer.Argument(metavar="SIZE", help="512M, 1.5GiB.")]
Root = Annotated[Path, typer.Option(metavar="DIR", help="Another file system root.")]
SLASH = Path("/")


@agent.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide all, change nothing.")] = False,
    once: Annotated[
        bool, typer.Option("--once", help="Look at every guest, decide once, and leave.")
    ] = False,
    config: Given = None,
    json: Json = False,
) -> None:
    """Without a command: watch this host and its guests, until Ctrl-C or SIGTERM.

    SIGHUP has it read its configuration again.
    """
    if context.invoked_subcommand is not None:
        return
    from qmpmem.cli import agent_run

    agent_run.run(agent_run.Options(config=config, dry_run=dry_run, once=once, json=json))


@agent.command(epilog=usage("qmpmem agent status", "qmpmem agent status --watch"))
def status(
    *,
    json: Json = False,
    watch: Annotated[
        float | None,
        typer.Option(
            parser=seconds,
            metavar="[TIME]",
            help="Each round, as it comes; or, where nothing is changed, so seldom.",
        ),
    ] = None,
) -> None:
    """Show the host's state, and each guest's part. And what there is to spare, holds and pins."""
    from qmpmem.api.records import Status
    from qmpmem.view import agent as view

    if watch is not None:
        _watch(watch, json=json)
        return
    found = _client().get("status", Status)
    if json:
        put_json(found)
        return
    show_pairs(list(view.status_rows(found)))
    if found.guests:
        put("")
        show_table(*view.guest_table(found.guests))
    for warning in found.warnings:
        warn(warning)


@agent.command(epilog=usage("qmpmem agent why web1"))
def why(name: Name, *, json: Json = False) -> None:
    """Show how a guest's size came about. Inputs, terms, the limit, the last decisions."""
    from qmpmem.api.records import Why

    client = _client()
    found = client.get(f"guests/{_known(client, name)}/why", Why)
    if json:
        put_json(found)
    else:
        show_why(found)


def show_why(found: "Why") -> None:
    """Show a guest's decision, term by term, and the last ones before it."""
    from qmpmem.view import agent as view

    show_pairs(list(view.why_rows(found)))
    if found.decisions:
        put("")
        show_prose(view.decision_line(each) for each in found.decisions)


@agent.command(epilog=usage("qmpmem agent plan"))
def plan(*, json: Json = False) -> None:
    """Show what the next round would decide, as things are now."""
    from qmpmem.model.round import Plan
    from qmpmem.view import agent as view

    found = _client().get("plan", Plan)
    if json:
        put_json(found)
    else:
        show_prose(view.plan_lines(found))
        if found.guests:
            put("")
            show_table(*view.guest_table(found.guests))


@agent.command(epilog=usage("qmpmem agent hold"))
def hold(*, json: Json = False) -> None:
    """Take nothing from any guest from now on. What is given back is given back."""
    _hold("PUT", "nothing is taken from any guest, until `qmpmem agent release`", json=json)


@agent.command(epilog=usage("qmpmem agent release"))
def release(*, json: Json = False) -> None:
    """End a hold."""
    _hold("DELETE", "the agent goes on", json=json)


@agent.command(
    context_settings={"ignore_unknown_options": True},
    epilog=usage("qmpmem agent pin web1 75%", "qmpmem agent pin web1 -128M --dry-run"),
)
def pin(
    name: Name,
    size: Annotated[
        str, typer.Argument(metavar="SIZE", help="512M, 1.5GiB, 50% of the maximum, +128M.")
    ],
    *,
    force: Annotated[bool, typer.Option("--force", help="Below the floor as well.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Keep a guest at a size, within its rule's limits. It goes there by the agent's steps."""
    from qmpmem.api.records import PinRequest, PinResult
    from qmpmem.cli.set import change_of
    from qmpmem.units import Bytes, format_size, write_change
    from qmpmem.view.rows import label

    request = PinRequest(size=write_change(change_of(name, size)), force=force)
    client = _client()
    query = "?dry_run=true" if dry_run else ""
    path = f"guests/{_known(client, name)}/pin{query}"
    done = client.ask("PUT", path, PinResult, request)
    words = "would be pinned" if dry_run else "pinned"
    but = f", but the agent leaves it alone: {done.exempt}" if done.exempt else ""
    called = label(done.guest, done.name)
    _tell(done, f"{called}: {words} to {format_size(done.size or Bytes(0))}{but}", json=json)


@agent.command(epilog=usage("qmpmem agent unpin web1"))
def unpin(name: Name, *, json: Json = False) -> None:
    """Let the agent move a pinned guest again."""
    let_go(name, json=json)


@agent.command(epilog=usage("qmpmem agent reserve 2G --for web9 --timeout 1min --keep 5min"))
def reserve(
    size: Size,
    *,
    timeout: Annotated[
        float, typer.Option(parser=seconds, metavar="TIME", help="How long to wait for it.")
    ] = 30.0,
    keep: Annotated[
        float, typer.Option(parser=seconds, metavar="TIME", help="How long it is kept then.")
    ] = 60.0,
    guest: Annotated[
        str | None, typer.Option("--for", metavar="NAME", help="The guest that will take it.")
    ] = None,
    json: Json = False,
) -> None:
    """Make room for a guest that is about to start.

    Ends when the room is there, or cannot be.
    """
    from qmpmem.api.records import LeaseRequest, LeaseResult
    from qmpmem.units import format_size, parse_size

    room = LeaseRequest(size=parse_size(size), timeout=timeout, keep=keep, guest=guest)
    done = _client().ask("POST", "leases", LeaseResult, room, seconds=timeout)
    kept = f"{format_size(done.size)} kept for {done.keep:g} s"
    _tell(done, f"lease {done.lease}: {kept}, after {done.seconds:.1f} s", json=json)


@agent.command(epilog=usage("qmpmem agent unreserve 1f2e3d4c"))
def unreserve(
    lease: Annotated[str, typer.Argument(metavar="LEASE", help="As `reserve` named it.")],
    *,
    json: Json = False,
) -> None:
    """Free the memory that `reserve` set aside."""
    from qmpmem.api.messages import quoted
    from qmpmem.api.records import LeaseEnded

    done = _client().ask("DELETE", f"leases/{quoted(lease)}", LeaseEnded)
    if not done.changed:
        raise ConfigError(f"lease {lease}: there is none", hint="`qmpmem agent status` shows all")
    _tell(done, f"lease {lease}: given back", json=json)


@agent.command(epilog=usage("qmpmem agent broker", "qmpmem agent broker --group 990"))
def broker(
    *,
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="The run directory for the agent.")
    ] = rundir.BROKER,
    group: Annotated[
        str, typer.Option(metavar="GROUP", help="The group of the agent's user: name or number.")
    ] = access.AGENT,
    config: Given = None,
) -> None:
    """Hold the guests' monitors for an agent that has no rights. Until Ctrl-C or SIGTERM.

    That agent has a user of its own and DIR as its run directory. The broker lets it move the
    guests' memory and read what it decides by, and do nothing else.
    """
    from qmpmem.cli import broker_run

    broker_run.run(directory, group, config)


@policy.command(epilog=usage("qmpmem agent policy show"))
def show(*, json: Json = False) -> None:
    """Show the numbers that decisions rest on, and what they mean."""
    from qmpmem.api import policy_constants
    from qmpmem.api.records import Constant
    from qmpmem.cli.show_guests import ask_agent

    found = ask_agent(lambda client: client.get("policy", tuple[Constant, ...]))
    found = policy_constants.constants() if found is None else found
    if json:
        put_json(found)
    else:
        show_table(
            ("NAME", "VALUE", "MEANING"),
            [(each.name, each.value, each.meaning or "") for each in found],
        )


@service.command(
    epilog=usage(
        "qmpmem agent service install",
        "qmpmem agent service install --separate",
        "qmpmem agent service install --user kim",
    )
)
def install(
    *,
    user: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="For the guests of this user, with no other rights."),
    ] = None,
    separate: Annotated[
        bool,
        typer.Option(
            "--separate",
            help="For root's guests: the agent as a user of its own, with no rights, and a broker "
            "as root, which lets it move memory and read.",
        ),
    ] = False,
    root: Root = SLASH,
    json: Json = False,
) -> None:
    """Have systemd run the agent. Can be repeated, also with other options."""
    from qmpmem.agent import system_user
    from qmpmem.agent.systemd_units import (
        BROKER,
        SEPARATE,
        expect_default_directory,
        remove_broker,
        unit_of,
    )
    from qmpmem.cli.systemd_units import expect_runnable, install_unit
    from qmpmem.systemd import expect_installable

    if not separate:
        unit = unit_of(user, root)
        expect_installable([unit], root)
        if user is not None:
            expect_runnable(user, root)
        install_unit(unit, root, json=json, after=remove_broker)
        return
    if user is not None:
        raise ConfigError("--separate is for root's guests, and takes no --user")
    expect_default_directory(root)
    expect_installable([BROKER, SEPARATE], root)
    expect_runnable(access.AGENT, root)
    made = system_user.make(root)  # first: a unit of a user that is not there cannot start
    install_unit(SEPARATE, root, json=json, needs=[BROKER], after=lambda _: made)


@service.command(epilog=usage("qmpmem agent service uninstall"))
def uninstall(*, root: Root = SLASH, json: Json = False) -> None:
    """Take that back. An agent that runs goes on until it is stopped."""
    from qmpmem.agent import system_user
    from qmpmem.agent.systemd_units import UNIT, remove_broker
    from qmpmem.cli.systemd_units import uninstall_unit
    from qmpmem.systemd import expect_ours

    expect_ours(UNIT, root)
    done = [*remove_broker(root), *system_user.forget(root)]
    uninstall_unit(UNIT, root, json=json, done=done)


@service.command("status", epilog=usage("qmpmem agent service status"))
def service_status(*, root: Root = SLASH, json: Json = False) -> None:
    """Show whether the unit is there, and whether it runs."""
    from qmpmem.agent.systemd_units import BROKER, SEPARATE, installed
    from qmpmem.cli.systemd_units import show_unit

    unit = installed(root)
    show_unit(unit, root, json=json, needs=[BROKER] if unit == SEPARATE else [])


def make_room(size: str, timeout: float) -> str:
    """Make room for the guest that this process becomes.

    Returns:
        The lease.

    Raises:
        AgentUnreachable: there is no agent.
        NotReached: the memory is not there in time. The message names the guests that could not
            give theirs.
    """
    from qmpmem.api.records import LeaseRequest, LeaseResult
    from qmpmem.units import parse_size

    room = LeaseRequest(size=parse_size(size), timeout=timeout, mine=True)
    return _client().ask("POST", "leases", LeaseResult, room, seconds=timeout).lease


def let_go(name: str, *, json: bool) -> None:
    """Unpin a guest, and tell the user that it is unpinned."""
    from qmpmem.api.records import PinResult
    from qmpmem.view.rows import label

    client = _client()
    done = client.ask("DELETE", f"guests/{_known(client, name)}/pin", PinResult)
    called = label(done.guest, done.name)
    _tell(done, f"{called}: {'unpinned' if done.changed else 'was not pinned'}", json=json)


def _hold(method: str, words: str, *, json: bool) -> None:
    from qmpmem.api.records import HoldResult

    _tell(_client().ask(method, "hold", HoldResult), words, json=json)


def _tell(done: object, words: str, *, json: bool) -> None:
    if json:
        put_json(done)
    else:
        put_plain(words)


def _client() -> "Client":
    from qmpmem.api.client import client

    return client(os.environ)


def _known(client: "Client", name: str) -> str:
    """Find a guest's id, as it stands in a path.

    Raises:
        ConfigError: the agent knows no such guest.
    """
    from qmpmem.api.agent_guest import find
    from qmpmem.api.messages import quoted

    seen = find(client, name)
    if seen is None:
        raise ConfigError(f"guest {name}: no such guest", hint="`qmpmem list` shows all")
    return quoted(seen.id)


def _watch(pause: float, *, json: bool) -> None:
    from qmpmem.model.round import Tick
    from qmpmem.view import agent as view

    shown: float | None = None
    for tick in _client().lines("ticks", Tick):
        plan = tick.plan
        is_quiet = not plan.balloons and not plan.reclaims and plan.ksm is None
        if is_quiet and shown is not None and tick.snapshot.time - shown < pause:
            continue
        shown = tick.snapshot.time
        if json:
            put_json(tick)
        else:
            show_prose(view.plan_lines(tick.plan))
    raise AgentUnreachable("the agent has ended", reason="none")
