"""After a boot, the units are at work by themselves, and nothing of the last boot is believed.

The tests of this file run in their order, each on what the ones before have left.
"""

from typing import Final

import pytest

from tests.boot.machine import (
    AGENT,
    KSM_UNIT,
    done,
    guests,
    installed,
    journal,
    knobs,
    properties,
    run,
    seen_by_agent,
    start_guest,
    until,
)

UNITS: Final = installed()
NAMES: Final = [unit.name for unit in UNITS]


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_started_with_the_machine(name: str) -> None:
    run("systemctl", "is-system-running", "--wait")
    assert properties(name, "ActiveState", "Result", "NRestarts") == {
        "ActiveState": "active",
        "Result": "success",
        "NRestarts": "0",
    }
    assert "Traceback" not in journal(name)


def test_ksm_was_set_up_before_the_agent() -> None:
    assert knobs()["run"] == "1"
    order = ("ExecMainExitTimestampMonotonic", "ExecMainStartTimestampMonotonic")
    ended = int(properties(KSM_UNIT, order[0])[order[0]])
    assert 0 < ended < int(properties(AGENT, order[1])[order[1]])


def test_nothing_of_the_last_boot_is_believed() -> None:
    assert guests() == {}
    assert seen_by_agent() == {}
    start_guest("web2", "-S", "-m", "512")
    until(lambda: "web2" in seen_by_agent(), "the agent knows web2")
    assert "it is prelaunch" in done("qmpmem", "history", "web1", "--since", "1d")
