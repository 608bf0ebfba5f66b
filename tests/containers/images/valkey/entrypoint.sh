#!/bin/sh
# As the official one: never root, files for nobody else; and reachable from other containers without a password.
set -e
[ "$(id -u)" != 0 ] || exec setpriv --reuid=valkey --regid=valkey --clear-groups -- "$0" "$@"
umask 0077
[ "$1" != valkey-server ] || set -- "$@" --protected-mode no
exec "$@"
