#!/bin/sh
# Runs the chroot mode's tests as root in a container as Docker starts one: default capabilities and system call
# profile, no /dev/fuse, no mounts, no namespaces. Needs root, python3, busybox-static and crun or runc.
#
# Usage: run.sh TEST-PROGRAM [FILTER]   (the program that `cargo test --no-run` made of tests/steps)
set -eu
program=$1
filter=${2:-chroot::}
here=$(cd "$(dirname "$0")" && pwd)
runtime=${RUNTIME:-$(command -v runc || command -v crun)} || true
[ -n "$runtime" ] || { echo "skipped: neither crun nor runc is installed"; exit 0; }
[ "$(id -u)" = 0 ] || { echo "skipped: needs root"; exit 0; }
bundle=$(mktemp -d)
trap 'rm -rf "$bundle"' EXIT
root=$bundle/rootfs
mkdir -p "$root/bin" "$root/tmp" "$root/etc" "$root/proc" "$root/sys" "$root/dev"
cp /bin/busybox "$root/bin/busybox"
for tool in sh cat ls mkdir; do ln -s busybox "$root/bin/$tool"; done
cp "$program" "$root/bin/steps"
# The libraries that a dynamic program needs, at the same places.
ldd "$program" 2>/dev/null | grep -o '/[^ )]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
python3 "$here/bundle.py" "$bundle" /bin/steps "$filter"
case $runtime in
*/crun) "$runtime" --cgroup-manager=disabled run --bundle "$bundle" "memobuild-test-$$" ;;
*) "$runtime" run --bundle "$bundle" "memobuild-test-$$" ;;
esac
