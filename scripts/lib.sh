# Shared by the scripts here; sourced, not run.

say() {
    printf 'setup: %s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

# Hold the lock FILE until this script ends; say WORDS where that means waiting.
lock() {
    command -v flock >/dev/null || return 0
    exec 9>"$1"
    if ! flock --nonblock 9; then
        say "$2"
        flock 9
    fi
}

# Install the Debian package NAME, as root or with a sudo that asks no password; what apt says goes to LOG.
apt_install() {
    command -v apt-get >/dev/null || return 1
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || return 1
        as_root=(sudo -n)
    fi
    {
        "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=120 update
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends "$1"
    } </dev/null >>"$2" 2>&1
}
