#!/bin/sh
# Make the virtual environment that `make` works in: tokenwatt in place, and the tools its tests need.
# Usage: setup.sh PYTHON VENV
set -eu
python=$1
venv=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "tokenwatt needs Python 3.11 or newer; $("$python" --version) is too old. Try: make PYTHON=python3.12" >&2
    exit 1
}

# Debian and Ubuntu package these apart from Python itself.
missing=
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="python3-venv"
"$python" -c 'import pathlib, sysconfig, sys; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' ||
    missing="$missing python3-dev"
if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing $missing"
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    apt-get install -qq -y $missing
    missing=
fi
case $missing in
*python3-venv*)
    echo "Python's venv module is missing. Install it and try again: sudo apt-get install $missing" >&2
    exit 1
    ;;
?*)
    # Without the headers the C ring cannot be built; its Python twin does the same, slower.
    echo "The headers of Python are missing (sudo apt-get install python3-dev): going on without the C extension." >&2
    ;;
esac

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --group dev --editable .
