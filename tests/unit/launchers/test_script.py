"""Which scripts are understood: those that do nothing but start an emulator."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers.kvm_script import understand

QEMU: Final = "qemu-system-x86_64"
SHEBANG: Final = "#!/bin/sh\n"


@pytest.mark.parametrize(
    ("text", "emulator", "options"),
    [
        (f'#! /bin/sh\nexec {QEMU} -enable-kvm "$@"\n', QEMU, ["-enable-kvm"]),
        (f'#!/bin/sh\nexec /usr/bin/{QEMU} "$@"', f"/usr/bin/{QEMU}", []),
        (f'#!/bin/bash -e\n\n# for kvm\n  exec {QEMU} "$@"  \n\n', QEMU, []),
        (f'#!/usr/bin/env bash\nset -eu\nexec {QEMU} "$@"\n', QEMU, []),
        (
            f'#!/bin/sh\necho "W: kvm is old" >&2\nexec {QEMU} -machine accel=kvm:tcg "$@"\n',
            QEMU,
            ["-machine", "accel=kvm:tcg"],
        ),
        (f'#!/bin/sh\n>&2 echo old\nexec {QEMU} ${{1+"$@"}}\n', QEMU, []),
        (f'#!/bin/sh\nexec {QEMU} \\\n  -m 1G \\\n  "$@"\n', QEMU, ["-m", "1G"]),
        (
            f'#!/bin/sh\nexec {QEMU} -name \'a b\' -append "c d" "" "$@"\n',
            QEMU,
            ["-name", "a b", "-append", "c d", ""],
        ),
        ('#!/bin/sh\nexec /usr/libexec/qemu-kvm "$@"\n', "/usr/libexec/qemu-kvm", []),
    ],
)
def test_plain_scripts(text: str, emulator: str, options: list[str]) -> None:
    script = understand(text)
    assert script is not None
    assert (script.emulator, script.options) == (emulator, options)


@pytest.mark.parametrize(
    "text",
    [
        "",
        SHEBANG,
        f'exec {QEMU} "$@"\n',
        f'#!/usr/bin/python3\nexec {QEMU} "$@"\n',
        f'#!/bin/sh -x\nexec {QEMU} "$@"\n',
        f'{SHEBANG}{QEMU} "$@"\n',
        f"{SHEBANG}exec {QEMU} $@\n",
        f'{SHEBANG}exec {QEMU} "$*"\n',
        f"{SHEBANG}exec {QEMU} -enable-kvm\n",
        f'{SHEBANG}exec {QEMU}"$@"\n',
        f'{SHEBANG}exec {QEMU} "$@" -enable-kvm\n',
        f'{SHEBANG}exec {QEMU} "$@" 2>>/var/log/kvm\n',
        f'{SHEBANG}exec "$QEMU" "$@"\n',
        f'{SHEBANG}exec {QEMU} -name "$(hostname)" "$@"\n',
        f'{SHEBANG}exec {QEMU} -name `hostname` "$@"\n',
        f'{SHEBANG}exec {QEMU} *.img "$@"\n',
        f'{SHEBANG}exec {QEMU} -name \'a "$@"\n',
        f'{SHEBANG}exec numactl {QEMU} "$@"\n',
        f'{SHEBANG}exec kvm "$@"\n',
        f'{SHEBANG}exec "$@"\n',
        f'{SHEBANG}ip tuntap add tap0\nexec {QEMU} "$@"\n',
        f'{SHEBANG}echo a >/var/log/b\nexec {QEMU} "$@"\n',
        f'{SHEBANG}echo `ip tuntap add tap0` >&2\nexec {QEMU} "$@"\n',
        f'{SHEBANG}echo a; ip tuntap add tap0\nexec {QEMU} "$@"\n',
        f'{SHEBANG}PATH=/opt\nexec {QEMU} "$@"\n',
        f'{SHEBANG}set -x\nexec {QEMU} "$@"\n',
        f'{SHEBANG}if true; then\nexec {QEMU} "$@"\nfi\n',
        f'{SHEBANG}exec {QEMU} "$@"\nexec {QEMU} -S "$@"\n',
    ],
)
def test_whatever_does_more_is_not_understood(text: str) -> None:
    assert understand(text) is None


@given(st.text(alphabet="exc qmu-syt\"'$@\\\n#!/binh;>&`", max_size=60))
def test_any_text_is_read(text: str) -> None:
    understand(SHEBANG + text)
