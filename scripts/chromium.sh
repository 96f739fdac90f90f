#!/usr/bin/env bash
# Sees to it that there is a Chromium for the browser tests; exits with 1 where there can be none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

runs() {
    local name
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        if command -v "$name" >/dev/null && "$name" --version >/dev/null 2>&1; then return; fi
    done
    return 1
}

runs && exit
mkdir -p .venv
lock .venv/chromium.lock "another process installs Chromium; waiting for it"
runs && exit
say "there is no Chromium, which the browser tests need: installing it (log: .venv/chromium.log)"
if apt_install chromium .venv/chromium.log && runs; then
    exit
fi
say "Chromium could not be installed, so the tests that click in the App are SKIPPED." \
    "Install chromium or google-chrome yourself to run them."
exit 1
