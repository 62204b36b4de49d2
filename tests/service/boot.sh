#!/bin/sh
# Boots systemd over a copy of this machine that is thrown away: an overlay over its root, in namespaces of its own.
# Started by tests/service/machine.rs, which ends it by its first process:
#
#   boot.sh FOLDER PROGRAM  (in new mount, pid, ipc, uts, network and cgroup namespaces)
set -eu
folder=$1
program=$2
root=$folder/root
mount -t tmpfs none "$folder"
mkdir "$folder/upper" "$folder/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 none "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 none "$root/run"
mount -t tmpfs -o mode=1777 none "$root/tmp"
# The program that is tried may have been built below a folder that is empty in there.
if [ ! -e "$root$program" ]; then
    mkdir -p "$root${program%/*}"
    mount --bind "${program%/*}" "$root${program%/*}"
fi
mount -t tmpfs -o mode=755 none "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 none "$root/dev/shm"
mount -t mqueue none "$root/dev/mqueue"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s null "$root/dev/console"
ip link set lo up

# Nothing of this machine's is started in the copy, and nobody of ours is there yet.
rm -rf "$root"/etc/systemd/system/*.wants "$root"/lib/systemd/system/multi-user.target.wants \
    "$root"/lib/systemd/system/sysinit.target.wants/*udev* "$root/etc/fstab" "$root/etc/ephemerd" \
    "$root/var/lib/ephemerd" "$root/usr/local/bin/ephemerd" "$root/var/log/ephemerd"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
for file in passwd group shadow gshadow; do
    sed -i '/^_ephemerd/d' "$root/etc/$file"
done

cd "$root"
mkdir -p mnt/old
pivot_root . mnt/old
umount -l /mnt/old
exec env -i container=ephemerd-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --log-target=console --show-status=0 --unit=multi-user.target
