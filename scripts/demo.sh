#!/bin/sh
# From a fresh clone to outlined lesions: a virtual environment with the everyday install (no torch), images,
# masks, overlays and a report. All of it stays in .demo.
#
# IMAGES  a folder, a zip or a glob of your own images (default: a dozen synthetic ones with exact masks);
#         a folder or zip with images/ and masks/ is scored too
# MODEL   a bundle to use instead of the one inside the package
# PYTHON  the Python to use, 3.11 or newer (default: python3)
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
images=${IMAGES:-}
model=${MODEL:-default}
demo=.demo
venv=$demo/venv
stamp=$venv/.dermseg-ready
count=12
seed=2026

# Installed once, and again when the sources or requirements are newer than that.
stale=yes
if [ -e "$stamp" ]; then
    stale=$(find src pyproject.toml -type f ! -name '*.pyc' -newer "$stamp" | head -n 1)
fi
if [ -n "$stale" ]; then
    echo "== installing dermseg in $venv"
    mkdir -p "$demo"
    sh scripts/venv.sh "$venv" "$python"
fi
bin=$venv/bin
[ -d "$bin" ] || bin=$venv/Scripts # Windows
if [ -n "$stale" ]; then
    constraints=
    [ ! -f constraints.txt ] || constraints="-c constraints.txt"
    # shellcheck disable=SC2086  # two words on purpose
    "$bin/python" -m pip install -qq --disable-pip-version-check $constraints .
    : >"$stamp"
fi

exact=
if [ -z "$images" ]; then
    echo "== drawing $count synthetic images with exact masks"
    "$bin/dermseg" data synth -o "$demo/synthetic" -n "$count" --seed "$seed" --overwrite
    images=$demo/synthetic/images
    exact=$demo/synthetic/masks
fi

# Reference masks beside the images are left out by `segment`; the result is scored against them.
if [ -z "$exact" ] && [ -d "$images/masks" ]; then
    exact=$images/masks
elif [ -z "$exact" ] && [ -f "$images" ] && "$bin/python" -m zipfile -l "$images" 2>/dev/null | grep -q '^masks/'; then
    exact=$images!masks/*
fi

echo "== segmenting $images"
rm -rf "$demo/out" # so that no earlier result is taken for this one's
status=0
"$bin/dermseg" segment "$images" -o "$demo/out" --overwrite --model "$model" || status=$?
[ -f "$demo/out/report.html" ] || exit "$status" # some images may have failed: the report lists them

if [ -n "$exact" ]; then
    echo "== scoring against the masks in $exact"
    "$bin/dermseg" score "$demo/out" "$exact"
fi

echo
echo "masks     $demo/out/masks"
echo "overlays  $demo/out/overlays"
echo "table     $demo/out/results.csv"
echo "report    $demo/out/report.html"
exit "$status"
