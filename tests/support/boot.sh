#!/bin/bash
# boot.sh WORK: systemd as PID 1 of its own namespaces, on an overlay of /. WORK is an empty folder; it ends when its
# PID 1 ends, and nothing of it stays. Start it as: unshare --mount --propagation private bash boot.sh WORK
set -eu
work=$1 groups=$1/cg tree=$1/tree group=firth-test-$(basename "$1")
if [ "${STAGE:-1}" = 1 ]; then
    mkdir -p "$groups" "$tree"
    mount -t cgroup2 none "$groups"
    mkdir -p "$groups/$group"
    (
        echo "$BASHPID" >"$groups/$group/cgroup.procs"
        STAGE=2 exec unshare --cgroup --net --uts --ipc --pid --mount --fork --kill-child bash "$0" "$work"
    ) || true
    find "$groups/$group" -depth -type d -exec rmdir {} \;
    umount "$groups"
    exit
fi
umount "$groups"
mount -t tmpfs -o mode=755 none "$tree"
cd "$tree"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=/,upperdir=$tree/upper,workdir=$tree/work" root
cd root
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys # sysctls are the host's
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs -o mode=755 none dev
mount -t tmpfs -o mode=755 none run
mount -t tmpfs -o mode=1777 none tmp
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 none dev/shm
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "dev/${node%:*}" c 1 "${node#*:}"; done
mknod -m 666 dev/tty c 5 0
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
ip link set lo up
rm -rf etc/systemd/system/*.wants etc/systemd/system/firthd* etc/sysusers.d/firth.conf etc/tmpfiles.d/firth.conf \
    var/lib/firth var/cache/firth etc/firth opt/firth usr/local/bin/firth usr/local/bin/firthctl \
    usr/local/bin/firthd
: >etc/machine-id
mkdir tmp/old
pivot_root . tmp/old
umount -l /tmp/old
rmdir /tmp/old
mount --make-rshared /
exec setpriv --bounding-set=-sys_module,-sys_time,-syslog env -i container=firth-test \
    PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=multi-user.target \
    --log-target=journal --show-status=no </dev/null
