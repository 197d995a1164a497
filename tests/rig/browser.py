"""A real browser without a window, and what its console says."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Error, Page, async_playwright

from tests.rig.patience import patient
from tests.rig.waiting import until

PICTURES: Final = "QMPMEM_PICTURES"
"""Names a directory for pictures of the page, as README shows them."""
LEFT: Final = "Execution context was destroyed"
"""What playwright says of an expression whose page is left meanwhile."""
SERIOUS: Final = frozenset({"serious", "critical"})
"""Impacts of axe-core."""


class Window:
    """One page in the browser.

    Attributes:
        page: as playwright has it.
        said: errors and warnings of its console, dialogs, and scripts that failed.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.said: list[str] = []
        page.set_default_timeout(patient(10) * 1000)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.said.append(f"script: {error}"))
        page.on("dialog", lambda dialog: self.said.append(f"dialog: {dialog.message}"))

    async def holds(self, expression: str) -> None:
        """Wait until an expression of JavaScript is true.

        playwright's own waiting evaluates text inside the page, whose policy forbids that.
        """
        await until(lambda: self._evaluate(expression), what=expression)

    async def faults(self) -> list[str]:
        """Return what axe-core finds that is serious for people with a screen reader or keys."""
        source = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text()
        await self.page.evaluate(source)
        found: dict[str, Any] = await self.page.evaluate("axe.run()")
        return [
            f"{each['id']}: {node['html'][:200]} {node['failureSummary']}"
            for each in found["violations"]
            if each["impact"] in SERIOUS
            for node in each["nodes"]
        ]

    async def picture(self, name: str) -> None:
        """Keep a picture, where pictures are wanted."""
        if directory := os.environ.get(PICTURES):
            await self.page.screenshot(path=Path(directory) / f"{name}.png")

    async def _evaluate(self, expression: str) -> object:
        try:
            return await self.page.evaluate(expression)
        except Error as error:
            # A page that was made before the first round replaces itself when that comes.
            if LEFT not in error.message:
                raise
            return None

    def _hear(self, message: Any) -> None:  # noqa: ANN401 - playwright's ConsoleMessage
        if message.type in ("error", "warning"):
            self.said.append(f"{message.type}: {message.text}")


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Run Debian's Chromium; skip the test where it is missing."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("missing: chromium (Debian: chromium)")
    async with async_playwright() as playwright:
        # Its sandbox does not work for root, which tests in CI are; what it shows is ours.
        opened = await playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
            timeout=patient(30) * 1000,
        )
        try:
            yield opened
        finally:
            await opened.close()


@asynccontextmanager
async def window(opened: Browser, **options: Any) -> AsyncIterator[Window]:  # noqa: ANN401 - as playwright takes them
    """Open a page of its own, with no cookies."""
    context = await opened.new_context(**options)
    try:
        yield Window(await context.new_page())
    finally:
        await context.close()
