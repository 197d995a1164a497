#!/bin/sh
# Writes tests/constraints.txt anew: what `pip install . --group dev` gives today, from nothing.
#
# Theory of operation:
#   All is installed into an environment that is thrown away, for the Python of PYTHON. The file is
#   replaced only when that went well.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-/usr/bin/python3}
pythons="3.11 3.12 3.13" # those that the versions are tried with: Debian 12, Debian 13
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT INT TERM

pip() { "$here/bin/python" -m pip --disable-pip-version-check "$@"; }

"$python" -m venv "$here"
pip install --quiet 'pip>=25.1'
pip install --quiet . --group dev
{
    echo "# The versions that CI and setup.sh install; tests/lock.sh writes this."
    echo "# For Python: $pythons"
    pip list --format=freeze --exclude qmpmem --exclude setuptools --exclude pip
} >"$here/constraints.txt"
cp "$here/constraints.txt" tests/constraints.txt
echo "lock: tests/constraints.txt has $(grep -c == tests/constraints.txt) packages"
