"""The systemd unit that sets KSM up at boot."""

from typing import Final

from qmpmem.systemd import Unit

UNIT: Final = Unit(
    name="qmpmem-ksm.service",
    first_line="# Does at boot what KSM_ENABLED and KSM_PRESET",
)
