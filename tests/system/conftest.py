"""What tests with real guests share."""

import pytest

from launchers.guest.build import Artifacts
from tests.rig import guests


@pytest.fixture(scope="session")
def artifacts() -> Artifacts:
    """Build the tiny guest once; where that fails the tests fail, they never skip."""
    return guests.ensure_built()
