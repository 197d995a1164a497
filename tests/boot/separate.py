"""After all was removed, an agent that is not root is put in place, and its broker.

The tests of this file run in their order, each on what the ones before have left.
"""

from pathlib import Path

from tests.boot.machine import (
    AGENT,
    BROKER,
    KSM_UNIT,
    allow_time,
    configure,
    done,
    installed,
    main_pid,
    state,
    verified,
)


def test_an_agent_with_a_user_of_its_own_is_installed() -> None:
    configure()
    done("qmpmem", "launcher", "install")
    done("qmpmem", "ksm", "service", "install")
    done("qmpmem", "agent", "service", "install", "--separate")
    allow_time(BROKER)
    names = [unit.name for unit in installed()]
    assert names == [KSM_UNIT, BROKER, AGENT]
    done("systemctl", "restart", KSM_UNIT, AGENT)  # which has its broker started
    for name in names:
        assert state(name) == "active"
        verified(name)
    assert Path(f"/proc/{main_pid(AGENT)}").owner() == "qmpmem-agent"
