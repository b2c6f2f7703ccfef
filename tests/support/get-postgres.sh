#!/bin/sh
# Says where a PostgreSQL server's programs are (initdb, postgres), as a folder on stdout, for the tests of the store.
# Where there are none and we are root, Debian's package `postgresql` is installed first. Exits with 1 where neither works.
set -eu

find_programs() {
    for folder in $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin 2>/dev/null | sort -rV) \
        "$(pg_config --bindir 2>/dev/null || true)"; do
        if [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ]; then
            echo "$folder"
            return 0
        fi
    done
    return 1
}

find_programs && exit 0
[ "${1:-}" = "--only-look" ] && exit 1
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 1
# The package would start a cluster of its own.
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
fi
install() { DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends postgresql >/dev/null 2>&1; }
install || { apt-get update >/dev/null 2>&1 && install; } || exit 1
find_programs
