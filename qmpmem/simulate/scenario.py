"""A host and its guests, as a file describes them. Pure.

    seconds = 300

    [host]
    memory = "8G"

    [[guest]]
    name = "db"
    kind = "bursty"
    memory = "4G"

Rules of this file:
    Every mistake is found, each with its line. With one mistake there is no scenario.
    How values are written is as in the configuration (qmpmem.configuration.value_types).
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from random import Random
from typing import Final, cast

from qmpmem.configuration import Mistake, Source
from qmpmem.configuration.errors import Place, shown, summary
from qmpmem.configuration.toml_document import Document, is_list, is_table, parse
from qmpmem.configuration.value_types import Kind, UnfitError, did_you_mean
from qmpmem.errors import ConfigError
from qmpmem.model.config import Class, Config, Rule
from qmpmem.model.escapes import shortened
from qmpmem.records import Record, replace
from qmpmem.simulate.guest_types import Range, make
from qmpmem.simulate.loads import Steady, Steps
from qmpmem.simulate.scenario_keys import GUEST, HOST, MOST, REQUEST, TOP
from qmpmem.simulate.spec import (
    Contained,
    Driver,
    Event,
    GuestSpec,
    HostSpec,
    Pause,
    Plug,
    Reboot,
    Request,
    World,
)
from qmpmem.units import MIB, Bytes, Share

OWN_PERCENT: Final = Decimal(5)
"""Percent of a host's memory that everything beside its guests needs, where the file sets
nothing."""
LOW_PERCENT: Final = Decimal(20)
HIGH_PERCENT: Final = Decimal(70)
"""`LOW_PERCENT` and this: percents of a guest's memory between which its load moves, where the file
sets nothing."""

TABLES: Final = ("host", "guest", "request")


class Entry(Record, frozen=True):
    """One table of the file, as far as it makes sense."""

    place: Place
    values: Mapping[str, object]


class Described(Record, frozen=True):
    """A file's tables."""

    top: Entry
    host: Entry
    request: Entry
    guests: tuple[Entry, ...]
    mistakes: tuple[Mistake, ...]


def read(source: Source, config: Config, *, shift: int = 0) -> World:
    """Read a scenario.

    Args:
        source: the file.
        config: the policy's settings, where the scenario sets nothing else.
        shift: added to the seed that the scenario names, for the same scenario by another chance.

    Raises:
        ConfigError: there are mistakes in it; the first is named, with file, line and key.
    """
    if source.problem is not None:
        place = Place(file=source.file, line=source.line)
        _refuse((Mistake(place=place, key=None, problem=source.problem),))
    document = parse(source.file, source.text)
    if document.mistake is not None:
        _refuse((document.mistake,))
    found = _describe(document)
    _refuse(found.mistakes)
    memory = cast("Bytes", found.host.values["memory"])
    seed = cast("int", found.top.values.get("seed", 0)) + shift
    random = Random(seed)  # noqa: S311 - repeatable on purpose
    seconds = cast("float", found.top.values.get("seconds", 300.0))
    guests = tuple(
        guest for entry in found.guests for guest in _guests(entry.values, seconds, random)
    )
    return World(
        host=_host(found.host.values, memory),
        guests=guests,
        config=_config(config, found),
        seconds=seconds,
        request=_request(found.request.values),
        day=cast("float | None", found.top.values.get("day")),
    )


def _refuse(mistakes: tuple[Mistake, ...]) -> None:
    if mistakes:
        raise ConfigError(summary(mistakes))


def _describe(document: Document) -> Described:
    mistakes: list[Mistake] = []
    plain = {key: value for key, value in document.values.items() if key not in TABLES}
    top = _entry(document, (), plain, TOP, mistakes)
    host = _entry(document, ("host",), document.values.get("host", {}), HOST, mistakes)
    request = _entry(document, ("request",), document.values.get("request", {}), REQUEST, mistakes)
    listed = document.values.get("guest", [])
    if not is_list(listed):
        problem = f"expected tables [[guest]], got {shown(listed)}"
        mistakes.append(Mistake(place=document.place("guest"), key="guest", problem=problem))
        listed = []
    guests = tuple(
        _entry(document, ("guest", number), each, GUEST, mistakes)
        for number, each in enumerate(listed)
    )
    mistakes += _missing(document, host, guests)
    return Described(top=top, host=host, request=request, guests=guests, mistakes=tuple(mistakes))


def _entry(
    document: Document,
    address: tuple[str | int, ...],
    table: object,
    keys: Mapping[str, Kind],
    mistakes: list[Mistake],
) -> Entry:
    """Read one table; what is wrong in it is added to the mistakes."""
    prefix = "".join(f"{part}." for part in address[:1])
    values: dict[str, object] = {}
    if not is_table(table):
        problem = f"expected a table, got {shown(table)}"
        place = document.place(*address)
        mistakes.append(Mistake(place=place, key=prefix.rstrip("."), problem=problem))
        return Entry(place=place, values=values)
    for key, value in table.items():
        problem = ""
        if key not in keys:
            hint = did_you_mean(key, list(keys)) or f"expected one of {', '.join(keys)}"
            problem = f"unknown key; {hint}"
        else:
            try:
                values[key] = keys[key].read(value)
            except UnfitError as error:
                problem = keys[key].refuse(value, error)
        if problem:
            name = prefix + shortened(key)
            place = document.place(*address, key)
            mistakes.append(Mistake(place=place, key=name, problem=problem))
    return Entry(place=document.place(*address), values=values)


def _missing(document: Document, host: Entry, guests: tuple[Entry, ...]) -> Iterator[Mistake]:
    given = document.values.get("host", {})
    if is_table(given) and "memory" not in given:
        yield Mistake(place=host.place, key="host.memory", problem="missing")
    if not guests:
        place = Place(file=document.file)
        yield Mistake(place=place, key="guest", problem="missing: expected tables [[guest]]")
    listed = document.values.get("guest", [])
    tables = listed if is_list(listed) else []
    asked = document.values.get("request", {})
    if is_table(asked) and asked and "size" not in asked:
        place = document.place("request")
        yield Mistake(place=place, key="request.size", problem="missing")
    names: set[str] = set()
    for number, (entry, table) in enumerate(zip(guests, tables, strict=False)):
        absent = [key for key in ("name", "memory") if is_table(table) and key not in table]
        for key in absent:
            yield Mistake(place=entry.place, key=f"guest.{key}", problem="missing")
        for name in _names(entry.values):
            if name in names:
                place = document.place("guest", number, "name")
                yield Mistake(place=place, key="guest.name", problem=f"{name} is there twice")
            names.add(name)
    if len(names) > MOST:
        place = Place(file=document.file)
        yield Mistake(place=place, key="guest", problem=f"expected at most {MOST} guests")


def _names(values: Mapping[str, object]) -> list[str]:
    name, count = values.get("name"), cast("int", values.get("count", 1))
    if name is None:
        return []
    return [str(name)] if count == 1 else [f"{name}{number}" for number in range(1, count + 1)]


SAME: Final = (
    *("touches_all", "deflate_on_oom", "free_page_reporting", "modern", "reports"),
    *("cgroup", "mapped", "zram"),
)
"""Keys that have the names of a guest's fields."""
SPEEDS: Final = ("allocates", "reads", "swap_speed", "rereads")
PARTS: Final = ("files", "hot_files", "swap")


def _guests(values: Mapping[str, object], seconds: float, random: Random) -> Iterator[GuestSpec]:
    memory = cast("Bytes", values["memory"])
    given: dict[str, object] = {key: values[key] for key in SAME if key in values}
    given |= {key: float(cast("Bytes", values[key])) for key in SPEEDS if key in values}
    given |= {key: _part(values[key], memory) for key in PARTS if key in values}
    if "has" in values:
        given["balloon"] = Bytes(memory - min(memory, _part(values["has"], memory)))
    if "hot" in values:
        given["hot"] = cast("int", values["hot"]) / 100
    if "demand" in values:
        given["load"] = Steps(points=cast("tuple[tuple[float, Bytes], ...]", values["demand"]))
    starts, apart = (cast("float", values.get(key, 0.0)) for key in ("starts", "apart"))
    events = tuple(_events(values))
    for number, name in enumerate(_names(values)):
        kind = str(values.get("kind", "steady"))
        guest = make(name, kind, memory, _span(values, memory, seconds), random)
        yield replace(
            guest,
            driver=_driver(guest.driver, values, memory),
            starts=starts + number * apart,
            events=(*guest.events, *events),
            **given,
        )


def _span(values: Mapping[str, object], memory: Bytes, seconds: float) -> Range:
    low = _part(values.get("low", Share(percent=LOW_PERCENT)), memory)
    high = _part(values.get("high", Share(percent=HIGH_PERCENT)), memory)
    return Range(
        low=low,
        high=max(low, high),
        every=cast("float", values.get("every", 60.0)),
        lasts=cast("float", values.get("lasts", 20.0)),
        seconds=seconds,
    )


def _events(values: Mapping[str, object]) -> Iterator[Event]:
    """Yield what happens to a guest, in any order."""
    for at in cast("tuple[float, ...]", values.get("reboots", ())):
        yield Reboot(at=at)
    for at in cast("tuple[float, ...]", values.get("contained", ())):
        yield Contained(at=at)
    for at, lasts in cast("tuple[tuple[float, float], ...]", values.get("pauses", ())):
        yield Pause(at=at, lasts=lasts)
    for at, size in cast("tuple[tuple[float, Bytes], ...]", values.get("plugs", ())):
        yield Plug(at=at, size=size)


def _driver(driver: Driver | None, values: Mapping[str, object], memory: Bytes) -> Driver | None:
    given: dict[str, object] = {}
    if "speed" in values:
        given |= dict.fromkeys(("inflate", "deflate"), float(cast("Bytes", values["speed"])))
    if "sticks" in values:
        stuck = cast("float", values["sticks"])
        given |= {"works": stuck, "period": 2 * stuck}
    if "stops_at" in values:
        given["least"] = _part(values["stops_at"], memory)
    if "grows_to" in values:
        given["most"] = _part(values["grows_to"], memory)
    if "misses" in values:
        given["misses"] = values["misses"]
    return None if driver is None else replace(driver, **given)


def _request(values: Mapping[str, object]) -> Request | None:
    if "size" not in values:
        return None
    return Request(size=cast("Bytes", values["size"]), at=cast("float", values.get("at", 0.0)))


def _host(values: Mapping[str, object], memory: Bytes) -> HostSpec:
    demand = cast("tuple[tuple[float, Bytes], ...]", values.get("own_demand", ()))
    own = _part(values.get("own", Share(percent=OWN_PERCENT)), memory)
    return HostSpec(
        memory=memory,
        own=Steps(points=demand) if demand else Steady(size=own),
        swap=cast("Bytes", values.get("swap", Bytes(0))),
        swap_speed=float(cast("Bytes", values.get("swap_speed", Bytes(200 * MIB)))),
        budget=cast("Bytes | None", values.get("budget")),
        same=cast("int", values.get("same", 0)) / 100,
    )


def _config(config: Config, found: Described) -> Config:
    rules = tuple(
        _rule(name, entry.values)
        for entry in found.guests
        if entry.values.keys() & {"minimum", "maximum", "shares", "class"}
        for name in _names(entry.values)
    )
    given: dict[str, object] = {
        key: found.top.values[key] for key in ("grace", "reserve") if key in found.top.values
    }
    if "ksm" in found.top.values:
        given["ksm"] = replace(config.ksm, managed=found.top.values["ksm"])
    return replace(config, rules=(*rules, *config.rules), **given)


def _rule(name: str, values: Mapping[str, object]) -> Rule:
    memory = cast("Bytes", values["memory"])
    lowest, most = values.get("minimum"), values.get("maximum")
    return Rule(
        match=name,
        minimum=None if lowest is None else _part(lowest, memory),
        maximum=None if most is None else _part(most, memory),
        shares=cast("int | None", values.get("shares")),
        kind=cast("Class", values.get("class", "default")),
    )


def _part(value: object, whole: Bytes) -> Bytes:
    if isinstance(value, Share):
        return Bytes(int(whole * value.percent // 100))
    return cast("Bytes", value)
