#!/bin/sh
# Makes a virtual environment, unless it is there: sh scripts/venv.sh FOLDER PYTHON
set -eu
[ ! -d "$1" ] || exit 0
"$2" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: $2 is older than Python 3.11; try: make demo PYTHON=python3.12, or make test likewise" >&2
    exit 2
}
# Debian's Python leaves one without pip behind where python3-venv is missing.
"$2" -m venv "$1" || { rm -rf "$1"; exit 1; }
