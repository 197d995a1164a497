"""The plans and the seal, over everything that could be seen."""

from typing import Final, Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qmpmem.errors import LaunchError
from qmpmem.launcher_install.layout import ASIDE, TEXTS, Layout, Step
from qmpmem.launcher_install.plan import judge, plan_install, plan_uninstall
from qmpmem.launcher_install.wrapper import make_wrapper, recognise
from qmpmem.records import replace

SHIM = b"#!/bin/sh\nlaunchers=somewhere\nexec echo qmpmem\n"

LIBRARIES: Final[list[Literal["missing", "outdated", "latest"]]] = ["missing", "outdated", "latest"]
PROGRAMS = ["missing", "broken", "real", "wrapper", "changed", "linked", "old-recipe"]


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    kvm = draw(st.sampled_from(PROGRAMS))
    aside = draw(st.booleans())
    by = draw(st.sampled_from([None, "qmpmem", "LOCAL"]))
    library = draw(st.sampled_from(LIBRARIES))
    return Layout(
        kvm=kvm,  # type: ignore[arg-type]
        latest=kvm == "wrapper" and draw(st.booleans()),
        aside=aside,
        twins=aside and kvm == "real" and draw(st.booleans()),
        diversion=by and draw(st.sampled_from([ASIDE, "/usr/bin/kvm.distrib"])),
        diverted_by=by,
        dpkg=by is not None or draw(st.booleans()),
        library=library,
        named=draw(st.booleans()),
        older=library != "missing" and draw(st.booleans()),
        scripts=draw(st.sampled_from(LIBRARIES)),
    )


def names(steps: list[Step]) -> list[str]:
    return [step.action for step in steps]


@given(layouts())
def test_the_launcher_is_placed_only_when_the_emulator_has_its_second_name(layout: Layout) -> None:
    try:
        steps = names(plan_install(layout))
    except LaunchError:
        assert judge(layout) == "blocked"
        return
    assert layout.aside or steps.index("set-aside") < steps.index("place-wrapper")
    if "keep-name" in steps and "place-wrapper" in steps:
        assert steps.index("keep-name") < steps.index("place-wrapper")
    if "drop-older" in steps:
        assert layout.latest or steps.index("place-wrapper") < steps.index("drop-older")
    if "set-aside" in steps:
        assert layout.kvm == "real"
        assert (
            layout.diverted or not layout.dpkg or steps.index("divert") < steps.index("set-aside")
        )


@given(layouts())
def test_an_emulator_is_never_lost(layout: Layout) -> None:
    try:
        steps = names(plan_uninstall(layout))
    except LaunchError:
        return
    if "drop-aside" in steps:
        assert layout.twins or steps.index("put-back") < steps.index("drop-aside")
    if "put-back" in steps:
        assert layout.kvm in ("wrapper", "missing")
    if "remove-wrapper" in steps:
        assert layout.kvm == "wrapper"
        assert not layout.aside


@given(layouts())
def test_where_we_left_no_trace_nothing_is_removed(layout: Layout) -> None:
    layout = replace(layout, library="missing", older=False, scripts="missing")
    assume(not layout.traces)
    assume(layout.kvm != "changed")
    assert plan_uninstall(layout) == []
    assert judge(layout) in ("absent", "blocked")


@given(layouts())
def test_a_foreign_diversion_stops_the_launcher(layout: Layout) -> None:
    assume(layout.foreign)
    assert judge(layout) == "blocked"
    with pytest.raises(LaunchError):
        plan_install(layout)


def test_the_wrapper_says_where_the_launchers_are_and_is_known_again() -> None:
    wrapper = make_wrapper(SHIM, "/usr/lib/x")
    assert wrapper.startswith(b"#!/bin/sh\nlaunchers=/usr/lib/x\nexec echo qmpmem\n# ")
    assert recognise(wrapper) == "wrapper"


@given(position=st.integers(0, len(make_wrapper(SHIM, "/x")) - 1), byte=st.integers(0, 255))
def test_one_changed_byte_is_seen(position: int, byte: int) -> None:
    wrapper = bytearray(make_wrapper(SHIM, "/x"))
    assume(wrapper[position] != byte)
    wrapper[position] = byte
    assert recognise(bytes(wrapper)) != "wrapper"


@given(extra=st.binary(min_size=1, max_size=40))
def test_something_added_is_seen(extra: bytes) -> None:
    assert recognise(make_wrapper(SHIM, "/x") + extra) == "changed"


@given(content=st.binary(max_size=200))
def test_any_other_program_is_not_ours(content: bytes) -> None:
    assume(not content.startswith(b"#!"))
    assert recognise(content) == "real"


@pytest.mark.parametrize("shim", [b"#!/bin/sh\n", b"launchers=a\nlaunchers=b\n"])
def test_a_shim_without_one_place_to_fill_in_is_refused(shim: bytes) -> None:
    with pytest.raises(LaunchError, match="lines begin with launchers="):
        make_wrapper(shim, "/x")


def test_each_step_is_said_before_and_after_in_the_same_words() -> None:
    for action in TEXTS:
        step = Step(action=action)
        assert step.done.partition(" ")[0] in ("copied", "told", "gave", "put", "removed", "linked")
        assert step.done.partition(" ")[2] == step.text.partition(" ")[2]
