"""Which steps lead from what is there to the launcher in place, and back.

Theory of operation:
    install     copy-launchers  divert  set-aside  keep-name  place-wrapper  place-scripts
                drop-older
    uninstall   put-back  undivert  drop-aside  remove-scripts  remove-launchers

    There is a plan for each command. The one for kvm comes last, both ways: what all commands share
    is removed by it alone.

    Each plan is made from what is there now, never from what was done before, so a cut-off install
    is finished by install and taken back by uninstall; there is no journal to go wrong.

    The order keeps two promises. At every moment /usr/bin/kvm is a program that works: the real
    one gets a second name first, then the launcher is renamed over the first name, and the reverse.
    (`dpkg-divert --rename` would leave the host without kvm for a moment.) And at every moment a
    package upgrade does the right thing, because dpkg knows of the new place before it is used.

Rules of this file:
    Pure. What another program made is never overwritten or removed: that is an objection.
"""

from typing import Final

from qmpmem.errors import LaunchError
from qmpmem.launcher_install.layout import KVM, OLD_ASIDE, Action, Layout, State, Step, aside_of

GET_QEMU: Final = "`apt install qemu-system-x86`"
"""How QEMU is installed on Debian and Ubuntu."""


def plan_install(layout: Layout) -> list[Step]:
    """Plan what is left to do until kvm is our launcher; nothing if it is.

    Raises:
        LaunchError: something would be lost, or there is no emulator to launch.
    """
    objection = object_to_install(layout)
    if objection is not None:
        raise objection
    wanted: list[tuple[Action, bool]] = [
        ("copy-launchers", layout.library != "latest"),
        ("divert", layout.stands and layout.dpkg and not layout.diverted),
        ("set-aside", layout.stands and not layout.aside),
        ("keep-name", layout.stands and not layout.named),
        ("place-wrapper", layout.stands and not layout.latest),
        ("place-scripts", layout.scripts != "latest"),
        ("drop-older", layout.older and layout.command == KVM),
    ]
    return _steps(layout, wanted)


def plan_uninstall(layout: Layout) -> list[Step]:
    """Plan what is left to do until nothing of ours is there.

    Raises:
        LaunchError: something would be lost.
    """
    objection = object_to_uninstall(layout)
    if objection is not None:
        raise objection
    ours = layout.kvm == "wrapper" or layout.orphaned
    wanted: list[tuple[Action, bool]] = [
        ("put-back", ours and layout.aside),
        ("undivert", layout.diverted),
        ("drop-aside", layout.aside and (ours or (layout.twins and layout.traces))),
        ("remove-wrapper", layout.kvm == "wrapper" and not layout.aside),
        ("remove-scripts", layout.scripts != "missing" and layout.command == KVM),
        ("remove-launchers", layout.library != "missing" and layout.command == KVM),
    ]
    return _steps(layout, wanted)


def _steps(layout: Layout, wanted: list[tuple[Action, bool]]) -> list[Step]:
    return [Step(action=action, command=layout.command) for action, needed in wanted if needed]


def judge(layout: Layout) -> State:
    """Return in one word how far the launcher is installed."""
    if object_to_install(layout):
        return "blocked"
    left = {step.action for step in plan_install(layout)}
    if not left:
        return "installed"
    if not plan_uninstall(layout):
        return "absent"
    is_in_use = layout.kvm == "wrapper" and layout.library != "missing"
    is_cut_off = "divert" in left or left <= {"drop-older", "keep-name"}
    return "outdated" if is_in_use and not is_cut_off else "partial"


def object_to_install(layout: Layout) -> LaunchError | None:
    """Return what stands in the way of installing; None if nothing does."""
    if layout.foreign:
        return _object_to_program(layout) or _foreign(layout)
    return _object_to_program(layout) or _object_to_aside(layout)


def object_to_uninstall(layout: Layout) -> LaunchError | None:
    """Return what stands in the way of uninstalling; None if nothing does."""
    if layout.kvm == "changed" and layout.aside:
        return _object_to_program(layout)
    if layout.kvm == "wrapper" and layout.foreign:
        return _foreign(layout)
    return _object_to_aside(layout) if layout.traces else None


def _object_to_program(layout: Layout) -> LaunchError | None:
    kvm, aside, old = (
        layout.root + name for name in (layout.command, aside_of(layout.command), OLD_ASIDE)
    )
    match layout.kvm:
        case "missing" if not layout.stands:
            # A distribution need not have the name kvm. What else is asked for has to be there.
            if layout.others and layout.command == KVM:
                return None
            message, hint = f"{kvm}: there is no such program", f"install QEMU first: {GET_QEMU}"
        case "broken":
            message, hint = f"{kvm}: leads to no program", f"repair it, or install QEMU: {GET_QEMU}"
        case "wrapper" if not layout.aside:
            message = f"{aside}: is gone, so the launcher has no emulator"
            hint = f"install QEMU again ({GET_QEMU}), or uninstall the launcher"
        case "old-recipe":
            message = f"{kvm}: is a script that runs {old}, a name with which QEMU turns KVM off"
            hint = f"undo it first: mv {old} {kvm}"
        case "linked":
            message = f"{kvm}: is a link to a launcher, made by hand"
            hint = f"point it back first: ln -sfn qemu-system-x86_64 {kvm}"
        case "changed":
            message, hint = f"{kvm}: the launcher was changed by hand", _how_to_go_back(layout)
        case _:
            return None
    return LaunchError(message, hint=hint)


def _object_to_aside(layout: Layout) -> LaunchError | None:
    kvm, aside = layout.root + layout.command, layout.root + aside_of(layout.command)
    is_ours = layout.kvm in ("wrapper", "missing") or (layout.twins and layout.traces)
    if is_ours or not layout.aside:
        return None
    if layout.diverted:
        message = f"{kvm}: was replaced by hand after the launcher was installed"
        return LaunchError(message, hint=_how_to_go_back(layout))
    if layout.traces:
        message = f"{aside}: is older than {kvm}, which an upgrade replaced"
        return LaunchError(message, hint=f"if {kvm} is right, remove it: rm {aside}")
    return LaunchError(f"{aside}: is there already, and not ours", hint="move it elsewhere first")


def _foreign(layout: Layout) -> LaunchError:
    return LaunchError(
        f"{layout.root}{layout.command}: is diverted to {layout.diversion} by {layout.diverted_by}",
        hint=f"find out why with: dpkg-divert --root {layout.root or '/'} --list {layout.command}",
    )


def _how_to_go_back(layout: Layout) -> str:
    back = (
        f"ln -f {layout.root}{aside_of(layout.command)}"
        if layout.aside
        else "ln -sfn qemu-system-x86_64"
    )
    return f"keep a copy, then: {back} {layout.root}{layout.command}"
