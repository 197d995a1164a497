"""The token that lets a visitor change something, and the visitors that have shown it.

Rules of this file:
    The token is read from a file of our own, never from an argument, an address or a variable, and
    is in no line of the log. A browser gets a word of its own for it, which no script can read and
    no other site can send (RFC 6265bis: HttpOnly, SameSite), and which ends with this process.
"""

import hmac
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from qmpmem.errors import ConfigError, KernelError

COOKIE: Final = "qmpmem"
LASTS: Final = 12 * 3600.0
"""Seconds that a browser stays signed in."""
MOST: Final = 32
"""Browsers that are signed in at once; the one that signed in first makes way."""
SHORTEST: Final = 16
"""Characters that a token has at least."""
LONGEST: Final = 1024


def read_token(path: Path, environ: Mapping[str, str]) -> str:
    """Read the token.

    Args:
        path: of its file.
        environ: systemd names the directory of a service's secrets in CREDENTIALS_DIRECTORY, and
            keeps others from it (systemd.exec(5)).

    Raises:
        ConfigError: others may read the file, it is no file, or what is in it is no token.
        KernelError: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise KernelError(f"{path}: {error.strerror}") from error
    try:
        _expect_private(path, os.fstat(descriptor), environ)
        content = os.read(descriptor, LONGEST + 1)
    finally:
        os.close(descriptor)
    token = content.decode("ascii", "replace").strip()
    if not SHORTEST <= len(token) <= LONGEST or not token.isprintable() or "\ufffd" in token:
        raise ConfigError(
            f"{path}: expected {SHORTEST} to {LONGEST} printable characters of ASCII",
            hint=f"`(umask 077; openssl rand -hex 32 >{path})` makes one",
        )
    return token


def _expect_private(path: Path, found: os.stat_result, environ: Mapping[str, str]) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{path}: expected a file")
    is_open = found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    is_kept = str(path.parent) == environ.get("CREDENTIALS_DIRECTORY")
    if not is_kept and (is_open or found.st_uid not in (0, os.geteuid())):
        raise ConfigError(
            f"{path}: others may read it (uid {found.st_uid}, "
            f"mode {stat.S_IMODE(found.st_mode):o})",
            hint=f"`chmod 600 {path}`, and give it to the user that serves the page",
        )


class Tokens:
    """Knows which visitors may change something.

    Args:
        token: None: no visitor may.
        clock: seconds of a steady clock.
    """

    def __init__(self, token: str | None, clock: Callable[[], float]) -> None:
        self._token = token
        self._clock = clock
        self._until: dict[str, float] = {}

    @property
    def exist(self) -> bool:
        """Tell whether there is a token."""
        return self._token is not None

    def fits(self, word: str) -> bool:
        """Tell whether a word is the token. Takes as long for every word."""
        given = word.encode("utf-8", "replace")
        return self._token is not None and hmac.compare_digest(given, self._token.encode())

    def admit(self) -> str:
        """Let a browser that has shown the token stay; returns the value of its cookie."""
        now = self._clock()
        self._until = {key: until for key, until in self._until.items() if until > now}
        while len(self._until) >= MOST:
            del self._until[next(iter(self._until))]
        key = secrets.token_urlsafe(32)
        self._until[key] = now + LASTS
        return key

    def knows(self, cookie: str | None) -> bool:
        """Tell whether a browser was let in, and may still stay."""
        return cookie is not None and self._until.get(cookie, 0.0) > self._clock()

    def dismiss(self, cookie: str | None) -> None:
        """Forget a browser."""
        if cookie is not None:
            self._until.pop(cookie, None)
