#!/bin/sh
# Takes a checkout from nothing to ready: system packages, .venv, the project inside it.
#
#   tests/setup.sh [COMMAND=PACKAGE ...]    each pair adds a command that one target alone needs, or
#                                           a file, by its path
#   tests/setup.sh [COMMAND:PACKAGE[,PACKAGE] ...]  likewise, but puts that command alone into
#                                           .venv, out of the first package that has it: to install
#                                           one would start a service on this host
#
# Theory of operation:
#   Everything is looked for first, so a second run starts nothing but a few small programs and
#   uses no network. Two files in .venv say that it is whole:
#     place      where it was made, and of which Python; elsewhere its scripts do not run
#     installed  what it was installed from: that part of pyproject.toml, and the versions of
#                tests/constraints.txt (`make lock`); written last
#   An interrupted run leaves no `installed`, and the next one starts .venv afresh: a package that
#   was cut off half-way looks complete to pip.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-/usr/bin/python3}

say() { echo "setup: $*"; }

die() {
    say "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "to install packages, run as root or install sudo: $*"
    fi
}

place() { pwd && readlink -f .venv/bin/python; }

is_in_place() { place 2>/dev/null | cmp -s - .venv/place; }

can_make_venv() { "$python" -c 'import venv, ensurepip' 2>/dev/null; }

missing_packages() {
    is_in_place || can_make_venv || echo python3-venv
    for pair in qemu-system-x86_64=qemu-system-x86 "$@"; do
        case $pair in *:*) continue ;; esac
        case $pair in
            /*) [ -e "${pair%%=*}" ] || echo "${pair#*=}" ;;
            *) command -v "${pair%%=*}" >/dev/null || echo "${pair#*=}" ;;
        esac
    done
}

install_packages() {
    [ $# -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "missing: $*; there is no apt-get here, install them by hand"
    say "apt: installing $*"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >/dev/null
}

# Below [tool.ruff] stands nothing that changes what is installed.
to_install() {
    sed '/^\[tool\.ruff\]/,$d' pyproject.toml
    cat tests/constraints.txt
}

# The versions that were tested, where they were tested with this Python.
constraint() {
    version=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if sed -n 's/^# For Python: //p' tests/constraints.txt | tr ' ' '\n' | grep -qxF "$version"; then
        echo --constraint=tests/constraints.txt
    else
        say "pip: Python $version has no tested versions; taking the newest" >&2
    fi
}

make_venv() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$python: Python 3.11 or newer is needed; name one with PYTHON="
    say "venv: making .venv with $("$python" --version)"
    [ ! -L .venv ] || rm .venv # what it leads to is another checkout's
    "$python" -m venv --clear .venv
    place >.venv/place
    # The first pip that knows dependency groups is 25.1.
    pip install --quiet 'pip>=25.1'
}

pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

install_project() {
    if is_in_place && to_install | cmp -s - .venv/installed; then
        return
    fi
    if ! { is_in_place && [ -e .venv/installed ]; }; then
        make_venv
    fi
    rm -f .venv/installed
    say "pip: installing qmpmem and its group dev into .venv"
    # shellcheck disable=SC2046 # one word or none
    pip install --quiet --editable . --group dev $(constraint)
    say "pip: there are now $(pip list --format=freeze | tr '\n' ' ')"
    to_install >.venv/installed
}

# Its libraries are those of every Debian, or the command would not be here.
unpack_command() {
    here=$(mktemp -d .venv/unpack.XXXXXX)
    # A user that apt turns into for a download may not write here; it says so, and does without.
    (cd "$here" && apt-get download -qq "$2") 2>/dev/null &&
        dpkg-deb --extract "$here"/*.deb "$here/all" && mv "$here/all/usr/bin/$1" .venv/bin/
    unpacked=$?
    rm -r "$here"
    return "$unpacked"
}

unpack_commands() {
    for pair in "$@"; do
        command=${pair%%:*}
        case $pair in *:*) ;; *) continue ;; esac
        if [ -x ".venv/bin/$command" ]; then
            continue
        fi
        command -v apt-get >/dev/null || die "missing: $command; install it by hand"
        say "apt: taking $command out of its package"
        as_root apt-get update -qq
        for package in $(echo "${pair#*:}" | tr , ' '); do
            unpack_command "$command" "$package" && continue 2
        done
        die "no package of ${pair#*:} has $command, or none could be had"
    done
}

# Two makes at once take turns; the lock ends with this script, not with what it starts.
exec 9<pyproject.toml
flock 9

# shellcheck disable=SC2046 # one word each: package names
install_packages $(missing_packages "$@") 9<&-
install_project 9<&-
unpack_commands "$@" 9<&-
