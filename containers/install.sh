#!/bin/sh
# Installs dermseg with one program (the REST server or the dashboard) and DICOM into one folder: locked versions,
# hashes checked, wheels only, no torch. The Dockerfile runs it, and so does the test in a clean Debian root: what is
# proven is what is shipped.
#
#   sh containers/install.sh /opt/dermseg api|dashboard    run in the repository; needs Python with venv, the network
set -eu
cd "$(dirname "$0")/.."
to=$1
lock=requirements/$2.txt
python=${PYTHON:-python3}
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1

"$python" -m venv "$to"
"$to/bin/python" -m pip install -q --require-hashes --only-binary :all: -r "$lock"

# The tools stay outside: neither the builder nor what writes the bill of materials is in the image.
"$python" -m venv "$tools"
"$tools/bin/python" -m pip install -q --require-hashes --only-binary :all: -r requirements/build.txt
"$tools/bin/python" -m pip wheel -q --no-deps --no-build-isolation -w "$tools/wheel" .
"$to/bin/python" -m pip install -q --no-deps "$tools"/wheel/dermseg-*.whl
"$to/bin/python" -m pip check
"$to/bin/python" -m pip uninstall -q -y pip setuptools
"$tools/bin/cyclonedx-py" environment --output-format JSON --output-file "$to/sbom.cdx.json" "$to/bin/python"

"$to/bin/python" -c '
import importlib.util, sys
sys.exit("error: torch got into the image" if importlib.util.find_spec("torch") else 0)'
"$to/bin/python" -m compileall -q "$to"/lib/python3*/site-packages >/dev/null || true # old syntax in a test file
"$to/bin/dermseg" doctor
