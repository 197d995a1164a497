"""What a QEMU's command line tells of its name, its monitors, its manager and its accelerator.

Rules of this file:
    Pure. A command line is a claim of its process: the kernel knows whether a process listens where
    it claims to (`qmpmem.guests.discover` asks it).

Theory of operation:
    Options begin with one dash or two; their argument is the next word (QEMU: softmmu/vl.c,
    lookup_opt). Words that only look like an option, as in ``-append "-qmp"``, are not told apart
    here, which would take the list of all options: no process listens on a socket that such a word
    makes up. Inside an argument commas separate, a doubled comma is one, and the first field may
    lack its key (QEMU: util/qemu-option.c, opts_do_parse).

    A file that -readconfig names has sections such as ``[chardev "m"]`` with lines such as
    ``path = "/a"``, which mean the same as the options (QEMU: util/qemu-config.c).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from qmpmem.guests import managers
from qmpmem.records import Record
from qmpmem.wire.kernel.files import is_count

_WITH_ARGUMENT: Final = frozenset(
    (
        *("name", "qmp", "qmp-pretty", "monitor", "chardev", "mon", "readconfig"),
        *("accel", "machine", "M", "overcommit"),
    )
)
_FIELD: Final = re.compile(r"((?:[^,]|,,)*)(?:,|$)", re.DOTALL)

_ON: Final = ("on", "yes", "true", "y")
"""The words that QEMU takes for true (QEMU: qapi/qapi-util.c, qapi_bool_parse)."""

_SECTION: Final = re.compile(r'\[(?P<group>[\w-]+)(?:\s*\]|\s+"(?P<id>[^"]*)")')
_PAIR: Final = re.compile(r'(?P<key>[\w.-]+)\s*=\s*"(?P<value>[^"]*)')

NOTHING: Final[Mapping[str, str]] = {}

End = dict[str, str]
"""A character device's options; `id` where it has one."""


class CommandLine(Record, frozen=True):
    """What matters here of a QEMU's arguments."""

    program: str = ""
    """The program as it was called (argv[0]): QEMU picks its default accelerator by its ending."""
    name: str | None = None
    """What the user called the guest: any text."""
    paths: tuple[str, ...] = ()
    """Unix sockets with a QMP monitor, as the user wrote them; an abstract one begins with @."""
    human: tuple[str, ...] = ()
    """Unix sockets with a human monitor, as the user wrote them; an abstract one begins with @."""
    ports: tuple[int, ...] = ()
    """TCP ports with a QMP monitor."""
    human_ports: tuple[int, ...] = ()
    """TCP ports with a human monitor."""
    descriptors: tuple[int, ...] = ()
    """Inherited file descriptors of sockets with a QMP monitor."""
    other: bool = False
    """Whether there is a QMP monitor on something else: stdio, a pipe."""
    unread: tuple[str, ...] = ()
    """Files that -readconfig names and that could not be read; they may bring more monitors."""
    manager: str | None = None
    """The program that seems to have started it: see `qmpmem.guests.managers`."""
    locked: bool = False
    """Whether all memory is locked (-overcommit mem-lock=on): a balloon then frees none of it."""
    accelerators: tuple[str, ...] = ()
    """The accelerators that are asked for by name; empty where the choice is left to QEMU."""


def config_files(words: Sequence[str]) -> tuple[str, ...]:
    """Return the files that -readconfig names."""
    return tuple(text for option, text in _options(words) if option == "readconfig")


def parse(words: Sequence[str], configs: Mapping[str, str] = NOTHING) -> CommandLine:
    """Read a command line, its program included.

    Args:
        words: the arguments.
        configs: the texts of files that -readconfig names, by name.
    """
    options = list(_options(words))
    sections = [section for text in configs.values() for section in _sections(text)]
    chardevs = [fields(text, "backend") for option, text in options if option == "chardev"]
    chardevs += [section for group, section in sections if group == "chardev"]
    known = {chardev["id"]: chardev for chardev in chardevs if "id" in chardev}
    monitors = [*_monitors(options), *_configured(sections)]
    qmp = [_end(at, known) for is_qmp, at in monitors if is_qmp]
    human = [_end(at, known) for is_qmp, at in monitors if not is_qmp]
    names = [fields(text, "guest").get("guest") for option, text in options if option == "name"]
    return CommandLine(
        program=words[0] if words else "",
        name=next((name for name in reversed(names) if name), None),
        paths=tuple(filter(None, map(_path, qmp))),
        human=tuple(filter(None, map(_path, human))),
        ports=tuple(port for end in qmp if (port := _port(end)) is not None),
        human_ports=tuple(port for end in human if (port := _port(end)) is not None),
        descriptors=tuple(int(end["fd"]) for end in qmp if is_count(end.get("fd", ""))),
        other=any("path" not in end and "fd" not in end and _port(end) is None for end in qmp),
        unread=tuple(name for name in config_files(words) if name not in configs),
        manager=managers.by_arguments(words),
        locked=any(
            fields(text, "").get("mem-lock") in _ON
            for option, text in options
            if option == "overcommit"
        ),
        accelerators=tuple(_accelerators(words, options)),
    )


def fields(text: str, first: str) -> dict[str, str]:
    """Split an option's argument into keys and values.

    Args:
        text: such as ``socket,id=m,path=/a,,b``.
        first: the key of the first field where it has none.
    """
    found: dict[str, str] = {}
    for number, match in enumerate(_FIELD.finditer(text)):
        key, equals, value = match[1].replace(",,", ",").partition("=")
        if not equals:
            key, value = (first, key) if number == 0 else (key, "on")
        if key:
            found[key] = value
    return found


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    rest = iter(words[1:])
    for word in rest:
        option = word[1:].removeprefix("-")
        if word.startswith("-") and option in _WITH_ARGUMENT:
            yield option, next(rest, "")


def _sections(text: str) -> Iterator[tuple[str, End]]:
    """Yield the sections of a file for -readconfig; other lines are skipped.

    What follows a closing quote or bracket is ignored, as in QEMU.
    """
    group, section = "", End()
    for line in text.split("\n"):
        if header := _SECTION.match(line.strip()):
            if section:
                yield group, section
            group, section = header["group"], {"id": header["id"]} if header["id"] else {}
        elif pair := _PAIR.match(line.strip()):
            section[pair["key"]] = pair["value"]
    if section:
        yield group, section


def _monitors(options: Sequence[tuple[str, str]]) -> Iterator[tuple[bool, str | End]]:
    """Yield for each monitor whether it is QMP, and where: a chardev's id, or its options."""
    for option, text in options:
        if option == "mon":
            yield from _mon(fields(text, "chardev"))
        elif option in ("qmp", "qmp-pretty", "monitor") and text != "none":
            kind, _, rest = text.partition(":")
            yield option != "monitor", rest if kind == "chardev" else _named(kind, rest)


def _configured(sections: Sequence[tuple[str, End]]) -> Iterator[tuple[bool, str | End]]:
    for group, section in sections:
        if group == "mon":
            yield from _mon(section)


def _mon(monitor: End) -> Iterator[tuple[bool, str]]:
    yield monitor.get("mode") == "control", monitor.get("chardev", "")


def _named(kind: str, rest: str) -> End:
    """Read ``unix:PATH`` or ``tcp:HOST:PORT`` (QEMU: chardev/char.c, qemu_chr_parse_compat)."""
    if kind == "unix":
        return {"backend": "socket", **fields(rest, "path")}
    if kind == "tcp":
        address, _, _ = rest.partition(",")
        return {"backend": "socket", "port": address.rpartition(":")[2]}
    return {}


def _end(at: str | End, chardevs: Mapping[str, End]) -> End:
    end = at if isinstance(at, dict) else chardevs.get(at, {})
    # Behind a multiplexer the monitor shares the socket with a console, by keys (Ctrl-A c).
    is_usable = end.get("backend") == "socket" and end.get("mux") not in _ON
    return end if is_usable else {}


def _path(end: End) -> str | None:
    path = end.get("path")
    if path is None:
        return None
    if end.get("abstract") in _ON:
        return f"@{path}"
    return f"./{path}" if path.startswith("@") else path


def _port(end: End) -> int | None:
    port = end.get("port", "")
    return int(port) if port.isascii() and port.isdecimal() and len(port) <= len("65535") else None


def _accelerators(words: Sequence[str], options: Sequence[tuple[str, str]]) -> Iterator[str]:
    for option, text in options:
        if option == "accel":
            yield fields(text, "accel").get("accel", "")
        elif option in ("machine", "M"):
            yield from filter(None, fields(text, "type").get("accel", "").split(":"))
    if {"-enable-kvm", "--enable-kvm"}.intersection(words):
        yield "kvm"
