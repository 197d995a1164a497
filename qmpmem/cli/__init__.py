"""The command line: where it begins and ends.

app            the program: its commands, exit codes, and how an error becomes a line
arguments      the words of a call, before they are parsed
output         what is written, whatever the terminal can take
pager          long text on a terminal
refresh        a picture that is drawn again and again
signals        what is taken back when a signal comes
show_guests    list, info, stats
set            set, unpin, script
set_progress   one guest on its way to a size
events         events
events_follow  the work of it
launch         run, env, launcher
discover       adopt, forget, discover, doctor
ksm            ksm
config         config
agent          agent, why, pin, hold, reserve and others that ask the agent
agent_run      runs the agent
agent_log      what the agent, the broker and the page log
broker_run     runs the broker
systemd_units  what commands that put a unit in place have in common
qmp            qmp
qmp_sessions   the work of it
journal        history, replay, the past of why
plot           plot
simulate       simulate
serve          serve
top            top
help_topics    help
manual         the manual page

Theory of operation:
    A command lives for a tenth of a second, and a third of that is Python tidying up: it collects
    garbage while modules load, and takes every module apart when it ends. What ends with the
    process needs neither (measured with `import asyncio, qemu.qmp, typer`: 104 ms, 85 ms without
    the first, 70 ms without both; mypy does the same, mypy/util.py: hard_exit).
"""

import gc
import os
from contextlib import suppress
from typing import Final

COLLECT_AFTER: Final = 50_000
"""Objects after which Python collects garbage, instead of 700: more than a short command makes, and
few enough for a command that watches."""


def main() -> None:
    """Run the program, and leave with its exit code."""
    gc.set_threshold(COLLECT_AFTER)
    from qmpmem.cli import app

    try:
        app.main()
    except SystemExit as left:
        with suppress(OSError):  # what was printed cannot be written: Python's own end says so
            print(end="", flush=True)
            if left.code is None or isinstance(left.code, int):
                os._exit(left.code or 0)
        raise
