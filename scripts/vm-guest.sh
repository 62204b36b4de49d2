#!/bin/sh
# What a guest of the QEMU backend runs as its first process, instead of an init system: it makes the machine
# usable and then serves requests of the host. scripts/vm-image.sh puts it into the image as
# /sbin/ephemerd-guest; it is no use outside.
#
# Requests come over a virtio port that only the host and this script have. Each is a line with a decimal number
# and that many bytes of a shell script, which runs as root once all of it has come; what it prints goes back
# over the port, and nothing else does. A request may hold a credential: it is kept in memory, in a folder that
# only root can enter, and removed when it has run; it is in no argument, no environment and not on the console.
#
# One request runs at a time. It ends when its host is gone or sends another; processes that it left behind when
# it ended by itself go on, but print to nowhere from the next request on.

NAME=org.ephemerd.exec
FOLDER=/run/ephemerd
SCRIPT=$FOLDER/script
# The most that a request may have.
LIMIT=4194304

# Says something on the console.
say() {
    echo "ephemerd-guest: $*"
}

# Mounts what is not: mount_at FOLDER TYPE OPTIONS
mount_at() {
    mount -t "$2" -o "$3" "$2" "$1" || say "$1 cannot be mounted"
}

# Makes the file systems that are no disk. The initrd has mounted those it needed itself.
file_systems() {
    [ -e /proc/self ] || mount_at /proc proc nosuid,nodev,noexec
    [ -e /sys/class ] || mount_at /sys sysfs nosuid,nodev,noexec
    [ -e /dev/null ] || mount_at /dev devtmpfs nosuid
    mkdir -p /dev/pts /dev/shm
    mount_at /dev/pts devpts nosuid,noexec,gid=5,mode=620,ptmxmode=666
    # Together they leave memory for programs, however full they are.
    mount_at /dev/shm tmpfs nosuid,nodev,mode=1777,size=20%
    mount_at /run tmpfs nosuid,nodev,mode=755,size=10%
    mount_at /tmp tmpfs nosuid,nodev,mode=1777,size=40%
    mount_at /sys/fs/cgroup cgroup2 nosuid,nodev,noexec
    ln -s /proc/self/fd /dev/fd
    ln -s fd/0 /dev/stdin
    ln -s fd/1 /dev/stdout
    ln -s fd/2 /dev/stderr
    # Requests have one of their own: they must find room when a job has filled every other.
    mkdir -p "$FOLDER" /run/lock
    mount_at "$FOLDER" tmpfs nosuid,nodev,noexec,mode=700,size=16m
}

# Brings up the network that QEMU's user network is, if there is any.
network() {
    {
        echo link set lo up
        if [ -e /sys/class/net/eth0 ]; then
            echo address add 10.0.2.15/24 dev eth0
            echo link set eth0 up
            echo route add default via 10.0.2.2
        fi
    } | ip -batch - || say "no network"
}

# Finds the port's device. There is no udev that would name it.
find_port() {
    for port in /sys/class/virtio-ports/*; do
        name=
        [ -e "$port/name" ] && read -r name <"$port/name"
        if [ "$name" = "$NAME" ]; then
            port=/dev/${port##*/}
            return
        fi
    done
    return 1
}

# Ends the last request, if it has not ended itself, and frees the port of what it still prints.
end_request() {
    if [ -n "$leader" ] && [ -e "$SCRIPT" ]; then
        kill -KILL "-$leader" 2>/dev/null
        rm -f "$SCRIPT"
    fi
    leader=
    if [ -n "$relay" ]; then
        kill -KILL "$relay" 2>/dev/null
        wait "$relay" 2>/dev/null
        # It was not at the end: somebody can still print. A broken pipe would kill those who do.
        if [ $? -gt 128 ]; then
            cat <&5 >/dev/null 3>&- 5<&- &
        fi
        exec 5<&-
        relay=
    fi
}

# Waits a little for a request that is about to end by itself: its last line is with the host before that.
settle() {
    patience=20
    while [ -e "$SCRIPT" ] && [ "$patience" -gt 0 ]; do
        sleep 0.02
        patience=$((patience - 1))
    done
}

# Runs the request. It does not print to the port itself but to a pipe: who has
# the port can read it too, and would read the next request. The pipe has an inode whose mode lets every account
# open /dev/stdout and /dev/stderr.
start_request() {
    mkfifo -m 622 "$FOLDER/output"
    # shellcheck disable=SC2094
    # Opened for both first, for neither of the others waits then.
    exec 4<>"$FOLDER/output" 5<"$FOLDER/output" 6>"$FOLDER/output" 4>&-
    rm "$FOLDER/output"
    cat <&5 >&3 3>&- 5<&- 6>&- &
    relay=$!
    setsid "$0" run </dev/null >&6 2>&1 3>&- 5<&- 6>&- &
    leader=$!
    exec 6>&-
}

# Serves requests, for ever.
serve() {
    leader=
    relay=
    umask 077
    # Whatever a job does to the memory, this one answers.
    echo -1000 >/proc/self/oom_score_adj
    rm -f "$FOLDER"/*
    while :; do
        if ! IFS= read -r count <&3; then
            # Without a host the port is always at its end.
            end_request
            sleep 0.5
            continue
        fi
        case $count in
            '' | *[!0-9]* | ????????*) count=$((LIMIT + 1)) ;;
        esac
        if [ "$count" -gt "$LIMIT" ]; then
            say "not a request"
            # Where the next one begins cannot be told. The host has to come anew.
            cat <&3 >/dev/null
            continue
        fi
        settle
        end_request
        head -c "$count" <&3 >"$SCRIPT"
        if [ "$(wc -c <"$SCRIPT")" -ne "$count" ]; then
            say "a request came in part"
            rm -f "$SCRIPT"
            continue
        fi
        start_request
    done
}

# Runs one request, as the leader of a session that can be killed. A shell without job control lets what it runs
# in the background ignore some signals, which programs would inherit.
if [ "${1:-}" = run ]; then
    umask 022
    cd /
    echo 0 >/proc/self/oom_score_adj
    env -i --default-signal HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        /bin/sh "$SCRIPT"
    rm -f "$SCRIPT"
    exit
fi

if [ $$ -ne 1 ]; then
    say "is for process 1 of a guest" >&2
    exit 1
fi
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
umask 022
file_systems
echo ephemerd-guest >/proc/sys/kernel/hostname
network
# The host gives a job its disk by making this one larger.
resize2fs /dev/vda >/dev/null 2>&1 || say "the file system does not grow"
until find_port; do
    sleep 0.05
done
# It can be opened only once, so it is kept here, for a server that follows one that was killed.
exec 3<>"$port"
say "ready"
# In this process there is nothing but waiting, which also collects the processes that nobody else waits for. If
# it ended, the kernel would, too.
while :; do
    serve &
    wait $!
    say "the server ended"
    sleep 0.5
done
