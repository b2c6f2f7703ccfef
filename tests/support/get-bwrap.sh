#!/bin/sh
# Makes bubblewrap's program `bwrap` available, which shuts scripts in. Where it is missing and we are root, Debian's
# package is installed. Exits with 1 where that cannot be done.
set -eu
command -v bwrap >/dev/null && exit 0
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 1
install() { DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends bubblewrap >/dev/null 2>&1; }
install || { apt-get update >/dev/null 2>&1 && install; } || exit 1
