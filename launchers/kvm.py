"""Become the emulator: with what we add where that works, else with just what was asked for.

    kvm.py ready                                      says so if everything of ours can be loaded
    kvm.py proven|tried PYTHON REAL NAME WORD...      becomes REAL; `tried` asks for a stamp

Rules of this file:
    Here is the one place that catches everything: no mistake of ours may keep a guest from
    starting.
    It is compiled at each start, so it stays small; the modules that it loads are cached.
    Nothing is imported that CPython has not built in or loaded anyway (typing alone costs 10 ms).
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    Execute = Callable[[str, list[str], Mapping[str, str]], object]
else:
    import _signal

CANNOT_EXECUTE = 126  # as shells say it


def find_modules() -> None:
    """Make the files beside this one importable as the package `launchers`.

    The directory itself stays off sys.path, where its other files could hide a standard module.
    """
    package = type(sys)("launchers")
    # Not made absolute: the directory that this process is in may have been removed.
    package.__path__ = [os.path.dirname(__file__)]
    sys.modules["launchers"] = package


def restore_signals() -> None:
    """Undo what Python changed about signals: an ignored signal stays ignored across exec."""
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)


def obey_interrupts() -> None:
    """Let Ctrl-C end us, as it would a shell or QEMU; Python would make an exception of it."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def say(line: str) -> None:
    """Write a line for the user, where there is a stderr to write to."""
    try:
        os.write(2, f"qmpmem: {line}\n".encode(errors="backslashreplace"))
    except OSError:
        pass  # a guest without a terminal starts nevertheless


def explain(error: BaseException) -> str:
    """Return what went wrong in one line; what we did not expect with its kind."""
    kind = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    expected = isinstance(error, OSError) or kind in ("ClaimError", "SettingError")
    return str(error) if expected else f"{kind}: {error}"


def become(request: "Sequence[str]", execute: "Execute" = os.execve) -> None:
    """Become the emulator.

    Args:
        request: as the shim says it: state, Python, emulator, argv[0], and the user's words.
        execute: execve, but in tests.
    """
    real, name, words = request[2], request[3], request[4:]
    environment: Mapping[str, str] = os.environ
    try:
        undo: list[Callable[[], None]] = []
        try:
            from launchers import kvm_launch

            environment = kvm_launch.environment_for(real)
            added = kvm_launch.prepare(request, environment, undo, say)
            restore_signals()
            execute(real, [name, *words, *added], environment)
        except BaseException as error:  # noqa: BLE001 - see the rules of this file
            for step in reversed(undo):
                step()
            say(f"{explain(error)}; the guest starts unchanged")
            restore_signals()
            execute(real, [name, *words], environment)
    except BaseException:  # noqa: BLE001 - even undoing and telling may fail
        execute(real, [name, *words], environment)


def main() -> "NoReturn":
    """Run as the shim asks."""
    obey_interrupts()
    find_modules()
    request = sys.argv[1:]
    if request == ["ready"]:
        from launchers import kvm_launch

        os.write(1, f"{kvm_launch.READY}\n".encode())
        sys.exit(0)
    try:
        become(request)
    except OSError as error:
        say(f"{request[2]}: {error.strerror}")
    sys.exit(CANNOT_EXECUTE)


if __name__ == "__main__":
    main()
