"""What a QEMU's command line says of its name, its QMP monitors, its keeper and its accelerator.

Rules of this file:
    Pure. A command line is a claim of its process: whether somebody listens where it says, the
    kernel knows (`qmpmem.discover` asks it).

Theory of operation:
    Options begin with one dash or two; their argument is the next word (QEMU: softmmu/vl.c,
    lookup_opt). Words that only look like an option, as in ``-append "-qmp"``, are not told apart
    here, which would take the list of all options: a socket that such a word invents is not
    listened on. Inside an argument commas separate, a doubled comma is one, and the first field
    may lack its key (QEMU: util/qemu-option.c, opts_do_parse).
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from qmpmem.records import Record

_WITH_ARGUMENT: Final = frozenset(
    (
        *("name", "qmp", "qmp-pretty", "chardev", "mon", "readconfig"),
        *("accel", "machine", "M", "overcommit"),
    )
)
_FIELD: Final = re.compile(r"((?:[^,]|,,)*)(?:,|$)", re.DOTALL)

_ON: Final = ("on", "yes", "true", "y")
"""What QEMU takes for true (QEMU: qapi/qapi-util.c, qapi_bool_parse)."""

_LIBVIRT_CHARDEV: Final = "charmonitor"
"""What libvirt calls its monitor's chardev, always (libvirt: src/qemu/qemu_command.c)."""
_LIBVIRT_PATH: Final = re.compile(r"/libvirt/qemu/(?:lib/)?domain-")
"""The directory that libvirt makes for each guest, of the system's and of a user's libvirt."""


class CommandLine(Record, frozen=True):
    """What matters here of a QEMU's arguments."""

    program: str = ""
    """argv[0], by whose ending QEMU picks its default accelerator."""
    name: str | None = None
    """What the user called the guest; any text."""
    paths: tuple[str, ...] = ()
    """Unix sockets with a QMP monitor, as the user wrote them."""
    descriptors: tuple[int, ...] = ()
    """Inherited file descriptors of sockets with a QMP monitor."""
    other: bool = False
    """There is a QMP monitor on something else: stdio, TCP, a pipe."""
    from_file: bool = False
    """There is a -readconfig, whose file may bring more."""
    libvirt: bool = False
    """Started by libvirt, as it looks."""
    locked: bool = False
    """All memory is locked (-overcommit mem-lock=on): a balloon takes it without freeing any."""
    accelerators: tuple[str, ...] = ()
    """Those asked for by name; empty where the choice is left to QEMU."""


def parse(words: Sequence[str]) -> CommandLine:
    """Read a command line, its program included."""
    options = list(_options(words))
    chardevs = [fields(text, "backend") for option, text in options if option == "chardev"]
    sockets = {chardev.get("id"): chardev for chardev in chardevs if _is_socket(chardev)}
    monitors = list(_monitors(options))
    ends = [end if isinstance(end, dict) else sockets.get(end, {}) for end in monitors]
    names = [fields(text, "guest").get("guest") for option, text in options if option == "name"]
    return CommandLine(
        program=words[0] if words else "",
        name=next((name for name in reversed(names) if name), None),
        paths=tuple(end["path"] for end in ends if "path" in end),
        descriptors=tuple(int(end["fd"]) for end in ends if end.get("fd", "").isdecimal()),
        other=any("path" not in end and "fd" not in end for end in ends),
        from_file=any(option == "readconfig" for option, _ in options),
        libvirt=any(chardev.get("id") == _LIBVIRT_CHARDEV for chardev in chardevs)
        or any(_LIBVIRT_PATH.search(word) for word in words),
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


def _is_socket(chardev: dict[str, str]) -> bool:
    return chardev.get("backend") == "socket" and ("path" in chardev or "fd" in chardev)


def _monitors(options: Sequence[tuple[str, str]]) -> Iterator[str | dict[str, str]]:
    """Yield where each QMP monitor is: a chardev's id, or the end that was named in place."""
    for option, text in options:
        if option == "mon":
            monitor = fields(text, "chardev")
            if monitor.get("mode") == "control":
                yield monitor.get("chardev", "")
        elif option in ("qmp", "qmp-pretty") and text != "none":
            kind, _, rest = text.partition(":")
            if kind == "chardev":
                yield rest
            else:
                yield fields(rest, "path") if kind == "unix" else {}


def _accelerators(words: Sequence[str], options: Sequence[tuple[str, str]]) -> Iterator[str]:
    for option, text in options:
        if option == "accel":
            yield fields(text, "accel").get("accel", "")
        elif option in ("machine", "M"):
            yield from filter(None, fields(text, "type").get("accel", "").split(":"))
    if {"-enable-kvm", "--enable-kvm"}.intersection(words):
        yield "kvm"
