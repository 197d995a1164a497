"""What tests of processes share."""

from collections.abc import Iterator

import pytest

from qmpmem.api.sockets import Listeners
from tests.rig.agent import own_listener
from tests.rig.qemu import short_directory


@pytest.fixture
def listener() -> Iterator[Listeners]:
    """Yield the sockets of an agent, in a directory of their own."""
    with short_directory() as directory, own_listener(directory) as made:
        yield made
