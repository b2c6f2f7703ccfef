#!/bin/sh
# Puts promtool into the folder given as $1, out of Debian's package `prometheus`, without installing that package.
# Does nothing where promtool is there already. Needs apt-get and a reachable mirror; exits with 1 without them.
set -eu
target=$1
[ -x "$target/promtool" ] && exit 0
if found=$(command -v promtool); then
    ln -s "$found" "$target/promtool"
    exit 0
fi
command -v apt-get >/dev/null && command -v dpkg >/dev/null || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download prometheus >/dev/null 2>&1 || { apt-get update >/dev/null 2>&1 && apt-get download prometheus >/dev/null 2>&1; } || exit 1
dpkg -x prometheus_*.deb .
cd - >/dev/null
cp "$work/usr/bin/promtool" "$target/promtool"
