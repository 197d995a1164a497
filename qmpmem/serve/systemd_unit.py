"""The systemd unit that serves the page."""

from typing import Final

from qmpmem.systemd import Unit

UNIT: Final = Unit(
    name="qmpmem-serve.service",
    first_line="# Serves the web page and the metrics",
)

USER: Final = "qmpmem-serve"
"""The unit's user, which systemd makes while the unit runs, by the name of the unit."""
