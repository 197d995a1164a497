"""The numbers that the policy rests on, as records."""

from qmpmem.api.records import Constant
from qmpmem.policy.constants_table import CONSTANTS


def constants() -> tuple[Constant, ...]:
    """Return each number, with what it is and where it is from."""
    return tuple(
        Constant(name=name, value=value, meaning=meaning or None)
        for name, value, meaning in CONSTANTS
    )
