#!/usr/bin/env bash
# Leaves as much behind as it can: a daemon, folders nobody can enter, a deep tree, sockets, shared memory.
# All of it must be gone when the job is over.
set -euo pipefail

# Forked twice, in a session of its own, deaf to polite signals: a job's end does not end it.
(setsid sh -c 'trap "" HUP INT TERM; while :; do sleep 1; done' >/dev/null 2>&1 </dev/null &)

mkdir -p tree/locked/deeper
touch tree/locked/file
chattr +i tree/locked/file 2>/dev/null && echo "made a file immutable" || echo "could not make a file immutable"
# From the leaves up, for nothing can be reached below a folder that is closed.
find tree -depth -exec chmod 000 {} +
chmod 500 "$HOME"

# Far deeper than PATH_MAX allows a path to be.
(
    step=$(printf 'd%.0s' {1..100})
    for _ in {1..100}; do
        mkdir "$step"
        cd -P "$step" 2>/dev/null || break
    done
)

mkfifo "$TMPDIR/fifo"
for folder in /tmp /var/tmp /dev/shm; do
    echo litter >"$folder/litter" && echo "wrote to $folder"
done
python3 - <<'PYTHON'
import os
import socket

# Stays in the file system after its process is gone.
socket.socket(socket.AF_UNIX).bind(os.environ["TMPDIR"] + "/socket")
PYTHON
echo "left a process, $(find . 2>/dev/null | wc -l) files and folders, a fifo and a socket"
