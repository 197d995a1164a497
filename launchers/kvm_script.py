"""A kvm command that is a script: what it starts, where that is plain to see.

Theory of operation:
    Ubuntu and older Debian have a kvm of two lines, `exec qemu-system-x86_64 -enable-kvm "$@"`. To
    run an unknown script once more, to ask it what it can do, might make taps, mounts or logs. One
    that does nothing but start an emulator need not be run: the emulator is asked itself, and the
    script's own options are read as if the user had given them first. The guest is started by the
    script all the same.

Rules of this file:
    Whatever is not of just this shape is not understood.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 4096
SHELLS = ("sh", "bash", "dash", "ksh")
FLAGS = ("-e", "-u", "-eu", "-ue")
PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./=,:+@%")
"""What a shell takes as it is, wherever it stands in a word."""
ACTIVE = frozenset('$`\\"')
"""What a shell obeys between double quotes."""
USERS = ('"$@"', '${1+"$@"}')
"""The user's words, as they were given."""
EMULATORS = ("qemu-system-", "qemu-kvm")


class Script:
    """A script that does nothing but start an emulator."""

    __slots__ = ("emulator", "options")

    def __init__(self, emulator: str, options: "list[str]") -> None:
        self.emulator = emulator
        """As the script calls it: a path, or a name that is looked for on PATH."""
        self.options = options
        """What it is given before the user's words."""


def read_script(path: str) -> "Script | None":
    """Read a script; None for any that is not understood.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.read(descriptor, LIMIT + 1)
    finally:
        os.close(descriptor)
    if len(content) > LIMIT:
        return None
    try:
        return understand(content.decode("ascii"))
    except UnicodeDecodeError:
        return None


def understand(text: str) -> "Script | None":
    """Return what a script starts; None for any other than the shape that is meant here."""
    first, *rest = text.replace("\\\n", " ").splitlines() or [""]
    lines = [line.strip() for line in rest]
    commands = [line for line in lines if line and not line.startswith("#")]
    if not is_shell(first) or not commands or not all(map(is_harmless, commands[:-1])):
        return None
    words = split_command(commands[-1])
    if words is None or words[:1] != ["exec"]:
        return None
    emulator, *options = words[1:] or [""]
    if not emulator.rpartition("/")[2].startswith(EMULATORS):
        return None
    return Script(emulator, options)


def find_emulator(script: Script, environment: "Mapping[str, str]") -> "str | None":
    """Find what a script starts, as its shell would, but never our own launcher."""
    if "/" in script.emulator:
        return script.emulator if is_program(script.emulator) else None
    directories = environment.get("PATH", "").split(":")
    paths = (f"{directory or '.'}/{script.emulator}" for directory in directories)
    return next((path for path in paths if is_program(path)), None)


def is_program(path: str) -> bool:
    """Tell whether this is an emulator: a program, and no script."""
    try:
        if not (os.path.isfile(path) and os.access(path, os.X_OK)):
            return False
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(descriptor, 2) != b"#!"
    finally:
        os.close(descriptor)


def is_shell(line: str) -> bool:
    """Tell whether a first line names a shell, with no more than -e and -u."""
    if not line.startswith("#!"):
        return False
    program, *rest = line[2:].split() or [""]
    if program == "/usr/bin/env" and rest:
        program, *rest = rest
    return program.rpartition("/")[2] in SHELLS and all(word in FLAGS for word in rest)


def is_harmless(line: str) -> bool:
    """Tell whether a command before the last changes nothing: `set -e`, or a message on stderr."""
    for redirection in (">&2", "1>&2"):
        line = line.removesuffix(redirection).removeprefix(redirection).strip()
    words = split_words(line) or [""]
    return words[0] == "echo" or (words[0] == "set" and all(word in FLAGS for word in words[1:]))


def split_command(line: str) -> "list[str] | None":
    """Split a command that ends with the user's words, and leave those out."""
    for users in USERS:
        bare = line.removesuffix(users)
        if bare != line and bare.endswith((" ", "\t")):
            return split_words(bare)
    return None


def split_words(text: str) -> "list[str] | None":
    """Split as a shell does; None where it would do more than that."""
    words: list[str] = []
    word: str | None = None
    quote = ""
    for character in text:
        if quote:
            if character == quote:
                quote = ""
            elif quote == '"' and character in ACTIVE:
                return None
            else:
                word = (word or "") + character
        elif character in "'\"":
            quote, word = character, word or ""
        elif character in " \t":
            words += [] if word is None else [word]
            word = None
        elif character in PLAIN:
            word = (word or "") + character
        else:
            return None
    return None if quote else [*words, *([] if word is None else [word])]
