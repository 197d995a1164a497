"""Trying a policy on the page: a host that a visitor describes, played under all policies.

Rules of this file:
    A scenario is played in a process of its own, one at a time, with the least claim to a
    processor, and with limits of time and memory. Nothing real is looked at or touched.
"""

import asyncio
import sys
from contextlib import suppress
from typing import Final

import msgspec

from qmpmem.model.escapes import printable
from qmpmem.serve.html import Markup, join, tag
from qmpmem.serve.simulate_process import PlayedScenario
from qmpmem.view import simulation

LARGEST: Final = 32 * 1024
"""Bytes that a scenario may have, as a form sends it."""
PATIENCE: Final = 180.0
"""Seconds that a simulation may take in all, where the host is busy."""
ANSWER: Final = 16 << 20
"""Bytes that a simulation's process may answer with."""

EXAMPLE: Final = """\
seconds = 180
[host]
memory = "6G"
swap = "2G"
[[guest]]
name = "bursts"
memory = "2G"
demand = [[0, "200M"], [90, "1400M"]]   # from second 90 on it needs 1400 MiB
[[guest]]
name = "cached"
count = 3
memory = "2G"
low = "300M"                            # what it needs
files = "1500M"                         # what it has read
"""
TOO_MUCH: Final = "it takes too long or too much to be played here; `qmpmem simulate` has no limits"


class SimulatePage:
    """Plays scenarios, one at a time."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    @property
    def are_busy(self) -> bool:
        """Tell whether one is being played."""
        return self._turn.locked()

    async def play(self, text: str) -> PlayedScenario:
        """Play a scenario; what is wrong with it is in the answer."""
        async with self._turn:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-m", "qmpmem.serve.simulate_process"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                async with asyncio.timeout(PATIENCE):
                    content, _ = await child.communicate(text.encode("utf-8", "replace"))
            except TimeoutError:
                return PlayedScenario(problem=TOO_MUCH)
            finally:
                with suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
        try:
            return msgspec.json.decode(content[:ANSWER], type=PlayedScenario)
        except msgspec.DecodeError:  # it was ended by its limits
            return PlayedScenario(problem=TOO_MUCH)


def page(text: str, played: PlayedScenario | None) -> Markup:
    """Write a form for a scenario, and what came of the last one."""
    return join(
        tag(
            "section",
            tag("h2", "Try a policy"),
            tag(
                "p",
                "A host that you describe is played under our policy and those of others. Nothing "
                "real is touched. `qmpmem help simulate` says what it may hold; on the command "
                "line it is ",
                tag("code", "qmpmem simulate"),
                class_="dim",
            ),
            tag(
                "form",
                tag("label", "A host and its guests", for_="scenario"),
                tag("textarea", text, id="scenario", name="scenario", rows=18, spellcheck="false"),
                tag(
                    "div",
                    tag("button", "Play"),
                    tag(
                        "label", "from a file ", tag("input", type="file", id="file", disabled=True)
                    ),
                    class_="row",
                ),
                method="post",
                action="/try",
            ),
        ),
        None if played is None else _result(played),
    )


def _result(played: PlayedScenario) -> Markup:
    if played.problem is not None:
        return tag("section", tag("p", printable(played.problem), class_="old", role="alert"))
    heads = (tag("th", words, scope="col") for words in simulation.HEADERS)
    rows = (
        tag("tr", tag("th", first, scope="row"), *(tag("td", printable(each)) for each in rest))
        for first, *rest in played.rows
    )
    return tag(
        "section",
        tag("h2", "What came of it"),
        tag(
            "div",
            tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="plain"),
            class_="wide-content",
            tabindex=0,
            role="region",
            aria_label="Figures of each policy",
        ),
        tag(
            "div",
            *(tag("div", Markup(each), class_="plot") for each in played.plots),
            class_="grid",
        ),
    )
