"""QEMU's events as lines for people."""

import time
from collections.abc import Mapping

import pytest

from qmpmem.model.guest import GuestEvent
from qmpmem.view import events
from qmpmem.wire.events import ALLOWED


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("BALLOON_CHANGE", {"actual": 256 << 20}, "the guest now has 256 MiB"),
        ("BALLOON_CHANGE", {"actual": -1}, '{"actual":-1}'),
        ("BALLOON_CHANGE", {"actual": "x"}, '{"actual":"x"}'),
        ("RESET", {"guest": True, "reason": "guest-reset"}, "reset by the guest itself"),
        ("RESET", {"guest": False, "reason": "host-qmp-system-reset"}, "reset by QMP's system_r"),
        ("RESET", {"guest": True}, "reset by the guest itself"),
        ("RESET", {}, "reset"),
        ("SHUTDOWN", {"guest": False, "reason": "host-signal"}, "shut down by a signal to QEMU"),
        ("SHUTDOWN", {"guest": True, "reason": "a-new-one"}, "shut down (a-new-one)"),
        ("STOP", {}, "paused"),
        ("RESUME", {}, "runs again"),
        ("MIGRATION", {"status": "completed"}, "migration: completed"),
        ("DEVICE_DELETED", {"path": "/machine/x"}, "unplugged: /machine/x"),
        ("DEVICE_DELETED", {"device": "d", "path": "/machine/x"}, "unplugged: d"),
        (
            "MEMORY_DEVICE_SIZE_CHANGE",
            {"id": "v", "size": 1 << 30},
            "a memory device now has 1 GiB",
        ),
        ("GUEST_PANICKED", {"action": "pause"}, "the guest's kernel panicked; action: pause"),
        ("NEVER_HEARD_OF", {"a": [1]}, '{"a":[1]}'),
        ("NEVER_HEARD_OF", {}, ""),
    ],
)
def test_an_event_is_said_in_words(name: str, data: Mapping[str, object], words: str) -> None:
    assert events.words(name, data).startswith(words)


@pytest.mark.parametrize("name", sorted(ALLOWED - {"ACPI_DEVICE_OST"}))
@pytest.mark.parametrize("data", [{}, {"guest": 1, "action": 2, "size": None, "device": []}])
def test_no_event_that_is_let_in_shows_python(name: str, data: Mapping[str, object]) -> None:
    words = events.words(name, data)
    assert "True" not in words
    assert "None" not in words


def test_a_line_has_a_time_a_guest_a_name_and_no_control_characters() -> None:
    event = GuestEvent(id="web1", event="MEM_UNPLUG_ERROR", data={"msg": "\x1b[2J"}, time=0.0)
    clock = time.strftime("%H:%M:%S", time.localtime(0))
    said = r"memory could not be unplugged: \x1b[2J"
    assert events.line(event) == f"{clock} web1 MEM_UNPLUG_ERROR {said}"
