"""What QMPMEM_ settings say, from the environment and from the host's defaults.

    QMPMEM_MODE=balloon|static      static: all memory up front, never ballooned, never merged
    QMPMEM_BALLOON=on|off           off: only a monitor
    QMPMEM_INCOMING_BALLOON=on|off  off: no balloon for -incoming and -loadvm
    QMPMEM_ASK_SCRIPT=on|off        on: an emulator that is a script may be run to ask what it can
    QMPMEM_CURRENT=SIZE|PERCENT     what the guest starts with, of its memory: 512M, 25%
    QMPMEM_CGROUP=on|off|PARENT     on: a cgroup of its own, below the launcher's or below PARENT
    QMPMEM_KSM=on|off               whether equal pages may be merged
    QMPMEM_DOMAIN=NAME              guests of different domains do not trust each other
    QMPMEM_RUN_DIR=DIRECTORY        where guests are registered

    The shim knows QMPMEM_REAL, QMPMEM_PYTHON and QMPMEM_DEFAULTS, too.

Rules of this file:
    Pure. A setting that makes no sense is refused, never guessed: the guest then starts unchanged.
    An empty setting is no setting.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from launchers.kvm_current import Current

DOMAIN_LIMIT = 64


class SettingError(ValueError):
    """A setting makes no sense: which, and what was expected."""


class Settings:
    """What the user and the administrator want."""

    __slots__ = (
        "ask_script",
        "balloon",
        "cgroup",
        "current",
        "domain",
        "incoming_balloon",
        "ksm",
        "run",
        "static",
    )

    def __init__(self, values: "Mapping[str, str]") -> None:
        self.static = _choice(values, "QMPMEM_MODE", "balloon", "static") == "static"
        self.balloon = _switch(values, "QMPMEM_BALLOON") is not False
        self.incoming_balloon = _switch(values, "QMPMEM_INCOMING_BALLOON") is not False
        self.ask_script = _switch(values, "QMPMEM_ASK_SCRIPT") is True
        self.ksm = _switch(values, "QMPMEM_KSM")
        """None leaves it to the arguments and to QEMU."""
        self.current = _current(values)
        """None: all of its memory, or what the agent's rule for it says."""
        self.cgroup = _cgroup(values)
        """``on``, the path of a parent, or None."""
        self.domain = values.get("QMPMEM_DOMAIN") or None
        self.run = values.get("QMPMEM_RUN_DIR") or None
        if self.domain is not None and not _is_plain(self.domain):
            raise SettingError(
                f"QMPMEM_DOMAIN={self.domain!r}: expected 1 to {DOMAIN_LIMIT} letters, digits, ._-"
            )
        if self.run is not None and not self.run.startswith("/"):
            raise SettingError(f"QMPMEM_RUN_DIR={self.run!r}: expected an absolute path")


def read_settings(
    environment: "Mapping[str, str]", defaults: str, path: str = "defaults"
) -> Settings:
    """Read the settings.

    Args:
        environment: what wins.
        defaults: the text of the host's defaults.
        path: where that is from.

    Raises:
        SettingError: a setting makes no sense, or a line of the defaults is no setting.
    """
    values = dict(read_defaults(defaults, path))
    values.update({key: value for key, value in environment.items() if value})
    return Settings(values)


def read_defaults(text: str, path: str) -> "Iterator[tuple[str, str]]":
    """Read lines of KEY=VALUE, with or without quotes; the shim reads the same way.

    Raises:
        SettingError: a line is neither that nor empty nor a comment.
    """
    for number, line in enumerate(text.splitlines(), 1):
        key, equals, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals or not key.replace("_", "a").isalnum():
            raise SettingError(f"{path} line {number}: expected KEY=VALUE")
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        yield key, value


def _choice(values: "Mapping[str, str]", key: str, *choices: str) -> "str | None":
    value = values.get(key) or None
    if value is not None and value not in choices:
        raise SettingError(f"{key}={value!r}: expected {' or '.join(choices)}")
    return value


def _switch(values: "Mapping[str, str]", key: str) -> "bool | None":
    value = _choice(values, key, "on", "off")
    return None if value is None else value == "on"


def _current(values: "Mapping[str, str]") -> "Current | None":
    text = values.get("QMPMEM_CURRENT")
    if not text:
        return None
    from launchers.kvm_current import EXPECTED, read_current

    try:
        return read_current(text)
    except ValueError as error:
        raise SettingError(f"QMPMEM_CURRENT={text!r}: expected {EXPECTED}") from error


def _cgroup(values: "Mapping[str, str]") -> "str | None":
    text = values.get("QMPMEM_CGROUP") or "off"
    if text in ("on", "off"):
        return "on" if text == "on" else None
    parts = text.rstrip("/").split("/")
    if parts[0] or len(parts) == 1 or not all(map(_is_group, parts[1:])):
        raise SettingError(f"QMPMEM_CGROUP={text!r}: expected on, off or a path such as /vms")
    return text.rstrip("/")


def _is_group(part: str) -> bool:
    return part not in ("", ".", "..") and part.isprintable() and ":" not in part


def _is_plain(text: str) -> bool:
    plain = text.replace(".", "").replace("_", "").replace("-", "")
    return len(text) <= DOMAIN_LIMIT and text.isascii() and plain.isalnum()
