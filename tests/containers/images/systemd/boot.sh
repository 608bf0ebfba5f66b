#!/bin/sh
# The control groups are in a namespace of their own: writable for systemd.
mount -o remount,rw,bind /sys/fs/cgroup
for group in /sys/fs/cgroup/*; do [ -L "$group" ] || mount -o remount,rw,bind "$group" 2> /dev/null; done
exec /lib/systemd/systemd
