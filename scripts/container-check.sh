#!/bin/sh
# The image's steps without a container engine: the same install script in a clean Debian root, then the server as
# the image's user, root file system read-only, no capabilities, only the state folder and /tmp writable.
#
#   sudo sh scripts/container-check.sh ROOT      a folder to make; MIRROR=http://... for another Debian mirror
#
# Needs root, debootstrap, unshare and setpriv (util-linux), and the network. The root is kept: remove it yourself.
set -eu
cd "$(dirname "$0")/.."
root=$1
mirror=${MIRROR:-http://deb.debian.org/debian}
suite=${SUITE:-bookworm}
port=${PORT:-8765}

if [ ! -e "$root/usr/bin/python3" ]; then
    echo "== clean $suite in $root"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$root" "$mirror" >/dev/null
fi

# A command in the root, with /proc as a container has it; the mount ends with the command.
inside() {
    # shellcheck disable=SC2016  # the inner shell expands it
    unshare --mount --propagation private sh -c \
        'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"' "$root" "$@"
}

echo "== what the Dockerfile copies"
rm -rf "$root/src" "$root/opt/dermseg"
mkdir -p "$root/src" "$root/var/lib/dermseg" "$root/run/secrets"
cp -R pyproject.toml README.md LICENSE THIRD_PARTY_LICENSES.md requirements containers src "$root/src/"
cp /etc/resolv.conf "$root/etc/resolv.conf"
# Where this machine reaches the package index through something of its own, so must the root.
for file in /etc/pip.conf "${PIP_CERT:-}"; do
    [ -n "$file" ] && [ -f "$file" ] && mkdir -p "$root$(dirname "$file")" && cp -L "$file" "$root$file"
done

# containers/install.sh for a program, as the Dockerfile runs it.
install_program() {
    echo "== containers/install.sh: $1"
    rm -rf "$root/opt/dermseg"
    inside /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
        ${PIP_CERT:+PIP_CERT="$PIP_CERT"} ${PIP_EXTRA_INDEX_URL:+PIP_EXTRA_INDEX_URL="$PIP_EXTRA_INDEX_URL"} \
        sh /src/containers/install.sh /opt/dermseg "$1"
    cp containers/health.py "$root/opt/dermseg/health.py"
    du -sh "$root/opt/dermseg"
}

# Starts variables and a command in the background as the image does; $server is its process.
start() {
    unshare --mount --propagation private sh -c '
        mount --bind "$0" "$0" && cd "$0" && exec chroot . sh /start.sh "$@"' "$root" "$@" 2>"$root.log" &
    server=$! # every program on the way replaces itself by the next
    trap 'kill "$server" 2>/dev/null || true' EXIT
    tries=0
    until inside /usr/bin/env -i DERMSEG_PORT="$port" "$1" /opt/dermseg/bin/python /opt/dermseg/health.py; do
        tries=$((tries + 1))
        if [ "$tries" -ge 300 ] || ! kill -0 "$server"; then
            cat "$root.log" >&2
            exit 1
        fi
        sleep 1
    done
    echo "health check: ok after $tries s"
    grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|VmRSS):' "/proc/$server/status"
    if touch "/proc/$server/root/opt/dermseg/x" 2>/dev/null; then
        echo "error: the root file system can be written to" >&2
        exit 1
    fi
}

stop() {
    kill -TERM "$server"
    wait "$server" || true
}

install_program api

echo "== as the image starts it"
grep -q '^dermseg:' "$root/etc/passwd" || chroot "$root" sh -c '
    groupadd --gid 10001 dermseg
    useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/dermseg --shell /usr/sbin/nologin dermseg'
rm -rf "$root/var/lib/dermseg"
install -d -o 10001 -g 10001 -m 0700 "$root/var/lib/dermseg"
key=dsk_container-check
printf 'keys:\n  - id: check\n    sha256: %s\n' "$(printf %s "$key" | sha256sum | cut -d' ' -f1)" >"$root/run/secrets/keys"
chmod 0444 "$root/run/secrets/keys"

cat >"$root/start.sh" <<EOF
set -eu
mount --bind /var/lib/dermseg /var/lib/dermseg
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t proc proc /proc
mount -o remount,bind,ro /
exec setpriv --reuid=10001 --regid=10001 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \\
    env -i PATH=/opt/dermseg/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 DERMSEG_HOST=0.0.0.0 DERMSEG_PORT=$port \\
    DERMSEG_STATE=/var/lib/dermseg "\$@"
EOF
start DERMSEG_HEALTH=/health DERMSEG_KEYS_FILE=/run/secrets/keys dermseg serve

echo "== one image through the server and through the command"
inside /opt/dermseg/bin/dermseg data synth -o /var/tmp/check -n 1 --overwrite
set -- "$root"/var/tmp/check/images/*
image=/var/tmp/check/images/$(basename "$1")
inside /opt/dermseg/bin/dermseg segment "/var/tmp/check/images" -o /var/tmp/check/out --overwrite
ask() {
    inside /opt/dermseg/bin/python -c '
import sys, urllib.request as u
request = u.Request(sys.argv[1], open(sys.argv[2], "rb").read(), {"Authorization": "Bearer " + sys.argv[3],
    "Accept": "image/png", "Content-Type": "application/octet-stream"})
sys.stdout.buffer.write(u.urlopen(request, timeout=60).read())' "$@"
}
ask "http://127.0.0.1:$port/v1/segment" "$image" "$key" >"$root/var/tmp/check/mask.png"
cmp "$root"/var/tmp/check/out/masks/*.png "$root/var/tmp/check/mask.png"
echo "the masks are the same"
stop
inside /opt/dermseg/bin/dermseg audit verify /var/lib/dermseg/audit.jsonl
python3 -c '
import json, sys
parts = json.load(open(sys.argv[1]))["components"]
names = {part["name"].lower() for part in parts}
assert {"dermseg", "onnxruntime", "fastapi"} <= names and "torch" not in names, names
print(len(parts), "packages in the bill of materials")' "$root/opt/dermseg/sbom.cdx.json"

install_program dashboard
start DERMSEG_HEALTH=/_stcore/health dermseg dashboard --host 0.0.0.0 --port "$port" --no-browser
stop
