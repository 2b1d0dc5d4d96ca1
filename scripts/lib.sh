# Shared by the scripts: finding tools, installing what lacks. To be sourced by bash with `set -euo pipefail`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target_dir=${CARGO_TARGET_DIR:-$root/target}

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# need TOOL[:PACKAGE]...: Debian packages for what is not there. Root installs them; anyone else gets the list.
need() {
    local item lacking=()
    for item in "$@"; do
        have "${item%%:*}" || [ -e "${item%%:*}" ] || lacking+=("${item##*:}")
    done
    [ ${#lacking[@]} -gt 0 ] || return 0
    if [ "$(id -u)" = 0 ] && have apt-get; then
        say "installing ${lacking[*]}"
        apt_install "${lacking[@]}"
    else
        die "these Debian packages are needed: ${lacking[*]}
    sudo apt-get install -y ${lacking[*]}"
    fi
}

apt_install() {
    local log
    log=$(mktemp)
    if ! { DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" ||
        { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; }; } \
        >"$log" 2>&1; then
        cat "$log" >&2
        die "apt-get could not install: $*"
    fi
    rm -f "$log"
}

# Rust, where rustup puts it or on the PATH, and the C compiler that some crates call.
need_rust() {
    if ! have cargo && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    have cargo || die "Rust is needed: https://rustup.rs"
    need cc:gcc /usr/include/stdio.h:libc6-dev
}

# A busybox that is linked statically; sets $busybox.
need_busybox() {
    busybox=${BUSYBOX:-}
    [ -z "$busybox" ] || return 0
    for busybox in /bin/busybox /usr/bin/busybox; do
        if is_static "$busybox"; then return 0; fi
    done
    if [ "$(id -u)" = 0 ] && have apt-get; then
        say "installing busybox-static"
        apt_install busybox-static
        busybox=/bin/busybox
    else
        die "a static busybox is needed: sudo apt-get install -y busybox-static, or set BUSYBOX to one"
    fi
}

# busybox_for_arm64 DIR: puts Debian's static busybox for arm64 at DIR/busybox-arm64. apt's state for that lies in DIR as
# well: nothing changes on the machine.
busybox_for_arm64() {
    local dir=$1 apt
    mkdir -p "$dir/apt"/{lists,cache/archives}/partial
    apt=(apt-get -q -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root
        -o "Dir::State::Lists=$dir/apt/lists" -o "Dir::Cache=$dir/apt/cache" -o Dir::State::status=/dev/null)
    "${apt[@]}" update && (cd "$dir/apt" && "${apt[@]}" download busybox-static && dpkg-deb -x busybox-static_*.deb .) &&
        mv "$dir/apt/bin/busybox" "$dir/busybox-arm64"
}

# ldd fails on a program that has no loader, or says so.
is_static() { [ -x "$1" ] && { ! ldd "$1" >/dev/null 2>&1 || ldd "$1" 2>&1 | grep -q 'statically linked'; }; }

# Sets $memobuild: a release build, or what MEMOBUILD names.
build_release() {
    if [ -n "${MEMOBUILD:-}" ]; then
        memobuild=$(realpath "$MEMOBUILD")
        return
    fi
    (cd "$root" && cargo build --release -q -p memobuild)
    memobuild=$target_dir/release/memobuild
}

# Seconds with two digits since a `date +%s%N`.
seconds_since() {
    local ms=$((($(date +%s%N) - $1) / 10000000))
    printf '%d.%02d' $((ms / 100)) $((ms % 100))
}

# as_nobody DIR COMMAND...: as a user without any privilege, with DIR (given to that user) as home.
as_nobody() {
    local dir=$1
    shift
    chown -R 65534:65534 "$dir"
    setpriv --reuid=65534 --regid=65534 --clear-groups -- \
        env -u XDG_CACHE_HOME -u MEMOBUILD_CACHE_DIR HOME="$dir" TMPDIR="$dir" "$@"
}
