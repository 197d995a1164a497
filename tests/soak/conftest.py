"""What a soak needs: the tiny guest."""

import pytest

from launchers.guest.build import Artifacts
from tests.rig import guests


@pytest.fixture(scope="session")
def artifacts() -> Artifacts:
    """Build the tiny guest once."""
    return guests.ensure_built()
