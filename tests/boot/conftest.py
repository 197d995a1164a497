"""What the tests of a boot say while they run."""

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Show a failure when it happens: the machine may not come to the end."""
    if report.failed:
        print(f"\n{report.longreprtext}\n{report.capstdout[-4000:]}", flush=True)
