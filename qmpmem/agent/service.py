"""The systemd unit that runs the agent."""

from typing import Final

from qmpmem.service import Unit

UNIT: Final = Unit(
    name="qmpmem-agent.service",
    first_line="# Runs the agent, which moves memory",
)
