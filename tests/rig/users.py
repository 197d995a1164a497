"""As whom the tests run: root, who can be anybody, or an ordinary user, who stays one."""

import os
from typing import Final

import pytest

NOBODY: Final = 65534

IS_ROOT: Final = os.geteuid() == 0

ORDINARY: Final = NOBODY if IS_ROOT else os.geteuid()
"""An ordinary user."""

AS_ORDINARY: Final = (
    ["/usr/bin/setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if IS_ROOT
    else []
)
"""What a command is started by to run as that one."""


def needs_root(why: str) -> pytest.MarkDecorator:
    """Mark a test of what only root can bring about."""
    return pytest.mark.skipif(not IS_ROOT, reason=f"not root: {why}")
