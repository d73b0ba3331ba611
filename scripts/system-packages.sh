#!/bin/sh
# Debian packages that 'make test-system' needs and that are not there yet. Installs them where it may
# (root, or sudo without a password), else says the command.
set -eu
missing=
want() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
want chromium chromium
want node nodejs
want npm npm
want Orthanc orthanc
want dciodvfy dicom3tools
want Xvfb xvfb
for library in libEGL.so.1:libegl1 libGL.so.1:libgl1 libfontconfig.so.1:libfontconfig1 libdbus-1.so.3:libdbus-1-3 \
    libxkbcommon-x11.so.0:libxkbcommon-x11-0 libxcb-cursor.so.0:libxcb-cursor0 libxcb-icccm.so.4:libxcb-icccm4 \
    libxcb-keysyms.so.1:libxcb-keysyms1 libxcb-shape.so.0:libxcb-shape0; do
    ldconfig -p | grep -q "${library%%:*}" || missing="$missing ${library##*:}"
done
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || missing="$missing orthanc-dicomweb"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo=sudo; else
    echo "missing:$missing; install them with: sudo apt-get install -y --no-install-recommends$missing" >&2
    exit 1
fi
echo "== installing$missing"
$sudo apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
