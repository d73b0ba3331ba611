#!/bin/sh
# Writes the locked requirements of the container images: exact versions with the hashes of their files, for every
# platform. Run it after changing [api], [dashboard], [dicom], [heic] or constraints.txt. Needs uv (pip install uv).
set -eu
cd "$(dirname "$0")/.."
lock() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-find-links \
        --constraint constraints.txt --custom-compile-command "sh scripts/lock.sh" "$@"
}
lock pyproject.toml --extra api --extra dicom --extra heic -o requirements/api.txt
lock pyproject.toml --extra dashboard --extra dicom --extra heic -o requirements/dashboard.txt
lock requirements/build.in -o requirements/build.txt
