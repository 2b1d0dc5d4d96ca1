#!/bin/bash
# scripts/security-audit.sh [--quick | --tests]: what can be said of memobuild's security without a person.
#
#   advisories   known weaknesses of dependencies, by cargo-audit or cargo-deny, from the RustSec database: of the network,
#                or a copy in ADVISORY_DB or CARGO_HOME/advisory-db. An old copy that names nothing proves nothing
#   licences     every dependency's licence is one that deny.toml allows
#   sources      all come from crates.io, with checksums that the archives here agree with; no wildcards
#   policy       what cargo-deny says of the same by deny.toml, where it is installed
#   size         how many crates, and how long the longest chain of dependencies is: not far more than there were
#   unsafe       `unsafe` stands in crates/memobuild-sandbox/src/sys alone, each with its reason; all else forbids it
#   permissions  under a umask of 000: a cache, tokens and an audit log that nobody else reaches. Needs the program, built
#                unless MEMOBUILD names one
#   secrets      no keys or tokens in the tree, no files that anybody may write to
#   tests        the tests that stand for SECURITY.md (auditlib/security-tests.txt) are there; with --tests they are run
#
# --quick builds nothing: `permissions` is then skipped without MEMOBUILD. Ends with 1 if anything failed.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

quick=no
tests=there
for arg in "$@"; do
    case $arg in
        --quick) quick=yes ;;
        --tests) tests=run ;;
        *) die "unknown option $arg (see the head of this file)" ;;
    esac
done
[ "$quick$tests" != yesrun ] || die "--quick leaves the tests out"

cd "$root"
need_rust
need git python3
python3 -c 'import tomllib' 2>/dev/null || die "Python 3.11 or newer is needed"
export PYTHONDONTWRITEBYTECODE=1
lib=$root/scripts/auditlib
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

passed=0
failed=()
skipped=0

# part NAME COMMAND...: what it says in the end is its summary, or what is wrong.
part() {
    local name=$1 status=0
    shift
    # A subshell, so that `set -e` holds inside although the status is looked at.
    set +e
    (set -e; "$@") >"$work/said" 2>&1
    status=$?
    set -e
    case $status in
        0) passed=$((passed + 1)); printf 'ok      %-12s %s\n' "$name" "$(tail -n 1 "$work/said")" ;;
        77) skipped=$((skipped + 1)); printf 'skipped %-12s %s\n' "$name" "$(tail -n 1 "$work/said")" ;;
        *) failed+=("$name"); printf 'FAILED  %s\n' "$name"; sed 's/^/        /' "$work/said" ;;
    esac
}

skip() { say "$*"; exit 77; }

has_cargo() { cargo "$1" --version >/dev/null 2>&1; }

# The database's copy as cargo-deny looks for it: a clone, below a directory, under a name that is made from its address.
for_cargo_deny() {
    local clone=$work/advisories/advisory-db-3157b0e258782691
    git clone -q "$1" "$clone" && git -C "$clone" fetch -q || return 1
    sed "/^\[advisories\]/a db-path = \"$work/advisories\"\nmaximum-db-staleness = \"P36500D\"" deny.toml >"$work/deny.toml"
}

advisories() {
    local db=${ADVISORY_DB:-} tool=audit newest said status=0 copy=yes
    has_cargo audit || tool=deny
    has_cargo $tool || skip "neither cargo-audit nor cargo-deny is installed"
    if [ -n "$db" ]; then
        [ -d "$db/crates" ] || { say "$db is no advisory database"; return 1; }
        db=$(realpath "$db")
    else
        db=${CARGO_HOME:-$HOME/.cargo}/advisory-db
        if [ $tool = audit ]; then
            said=$(cargo audit --db "$db" --color never 2>&1) || status=$?
            [[ $said == *"couldn't fetch"* ]] || copy=no
        elif cargo deny --locked fetch db >/dev/null 2>&1; then
            copy=no
        fi
        [ $copy = no ] || [ -d "$db/crates" ] || skip "no network, and no copy of the database (ADVISORY_DB=DIR)"
    fi
    if [ $tool = audit ] && [ $copy = no ]; then
        say "$said"
    elif [ $tool = audit ]; then
        status=0
        cargo audit --db "$db" --no-fetch --stale --color never || status=$?
    elif [ $copy = yes ]; then
        for_cargo_deny "$db" || skip "cargo-deny takes a clone with git: $db is none"
        cargo deny --offline --locked --color never --config "$work/deny.toml" check advisories || status=$?
    else
        cargo deny --offline --locked --color never check advisories || status=$?
    fi
    [ $status = 0 ] || return 1
    [ $copy = yes ] || { say "cargo-$tool knows of none"; return 0; }
    newest=$(grep -rhoE '^date = "[0-9-]+"' "$db/crates" | cut -d'"' -f2 | sort | tail -n 1)
    [[ $newest > $(date -d '-90 days' +%F) ]] ||
        skip "cargo-$tool knows of none, but its database ends in ${newest:-no advisory}: too old to prove anything"
    say "cargo-$tool knows of none; the database's newest is of $newest"
}

policy() {
    has_cargo deny || skip "cargo-deny is not installed"
    cargo deny --offline --locked --color never check -A duplicate licenses bans sources
}

mode_is() {
    local mode
    mode=$(stat -c %a "$2")
    [ "$mode" = "$1" ] || { say "$(basename "$2") has mode $mode, not $1"; return 1; }
}

# Which of the files named on standard input nobody can read or write. For root.
reached_by_others() {
    setpriv --reuid=65534 --regid=65534 --clear-groups -- sh -c \
        'while IFS= read -r file; do if [ -r "$file" ] || [ -w "$file" ]; then printf "%s\n" "$file"; fi; done'
}

permissions() {
    local dir=$work/permissions reached open count token tried=
    if [ -n "${MEMOBUILD:-}" ] || [ "$quick" = no ]; then build_release; else skip "MEMOBUILD names no program"; fi
    mkdir -p "$dir/context"
    printf 'FROM scratch\nCOPY file /file\nWORKDIR /dir\n' >"$dir/context/Dockerfile"
    echo text >"$dir/context/file"
    umask 000
    MEMOBUILD_CACHE_DIR=$dir/cache "$memobuild" build -q "$dir/context" >/dev/null
    token=$("$memobuild" server token add somebody --tokens "$dir/tokens" 2>/dev/null)
    "$memobuild" server --listen 127.0.0.1:0 --data-dir "$dir/data" --tokens "$dir/tokens" --audit-log "$dir/audit" \
        >"$dir/log" 2>&1 &
    server=$!
    # Of the subshell that each part runs in.
    trap 'kill "$server" 2>/dev/null; wait "$server" || true' EXIT
    for _ in $(seq 100); do
        ! grep -q '^listening' "$dir/log" || break
        sleep 0.1
    done
    grep -q '^listening' "$dir/log" || { cat "$dir/log"; say "the server did not start"; return 1; }
    umask 022

    mode_is 700 "$dir/cache" || return 1
    mode_is 700 "$dir/data" || return 1
    mode_is 600 "$dir/tokens" || return 1
    mode_is 600 "$dir/audit" || return 1
    ! grep -qF "$token" "$dir/tokens" "$dir/audit" "$dir/log" || { say "the token itself is in a file"; return 1; }
    count=$(find "$dir/cache" -mindepth 1 | wc -l)
    open=$(find "$dir/cache" -mindepth 1 ! -type l -perm -o+w | wc -l)
    [ "$count" -gt 10 ] || { say "the build left only $count files in its cache"; return 1; }
    if [ "$(id -u)" = 0 ]; then
        # Where TMPDIR lies below a directory of root's alone, this would prove nothing.
        echo >"$dir/control"
        chmod 666 "$dir/control"
        if [ "$(reached_by_others <<<"$dir/control")" = "$dir/control" ]; then
            reached=$( (find "$dir/cache" "$dir/data"; printf '%s\n' "$dir/tokens" "$dir/audit") | reached_by_others)
            [ -z "$reached" ] || { say "others reach:"; say "$reached"; return 1; }
            tried=", tried as nobody"
        fi
    fi
    say "0700 around $count files of a cache ($open of them guarded by that alone) and a server's data," \
        "0600 for tokens and audit log$tried"
}

part advisories advisories
part licences "$lib/dependencies.py" licences
part sources "$lib/dependencies.py" sources
part policy policy
part size "$lib/dependencies.py" size
part unsafe "$lib/tree.py" unsafe
part permissions permissions
part secrets "$lib/tree.py" secrets
part tests "$lib/tests.py" "$tests"

if [ ${#failed[@]} -gt 0 ]; then
    say "audit: FAILED: ${failed[*]}; $passed passed, $skipped skipped"
    exit 1
fi
say "audit: ok, $passed passed, $skipped skipped"
