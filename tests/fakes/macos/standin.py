"""What the stand-ins for tools of macOS have in common: state in a folder, a log of calls, failures on demand.

The tools lie in BIN, their state in BIN/../state. A test reads `calls` there, one JSON list a line, and writes
`faults/TOOL`, a JSON list of failures: {"when": TEXT, "times": N, "code": N, "stdout": TEXT, "stderr": TEXT} or with "signal"
instead of "code". A failure happens to calls whose arguments contain TEXT, N times.
"""

import fcntl
import json
import os
import signal
import sys

STATE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0]))), "state")


def begin():
    """Notes the call, fails if it is to, and returns the arguments."""
    os.umask(0)
    tool, args = os.path.basename(sys.argv[0]), sys.argv[1:]
    with open(os.path.join(STATE, "calls"), "a") as calls:
        fcntl.flock(calls, fcntl.LOCK_EX)
        calls.write(json.dumps([tool, *args]) + "\n")
    path = os.path.join(STATE, "faults", tool)
    if os.path.exists(path):
        fail_once(path, " ".join(args))
    return args


def fail_once(path, args):
    with open(path, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        faults = json.load(file)
        fault = next((f for f in faults if f["when"] in args and f["times"] > 0), None)
        if fault is None:
            return
        fault["times"] -= 1
        file.seek(0)
        file.truncate()
        json.dump(faults, file)
    print(fault.get("stdout", ""), end="", flush=True)
    print(fault.get("stderr", ""), file=sys.stderr, flush=True)
    if "signal" in fault:
        os.kill(os.getpid(), fault["signal"])
        signal.pause()
    sys.exit(fault["code"])


def load(name, default):
    """Reads one piece of state."""
    try:
        with open(os.path.join(STATE, name)) as file:
            return json.load(file)
    except FileNotFoundError:
        return default


def save(name, value):
    """Writes one piece of state, in one step: somebody may be reading it."""
    path = os.path.join(STATE, name)
    fresh = f"{path}.{os.getpid()}"
    with open(fresh, "w") as file:
        json.dump(value, file, indent=1)
    os.replace(fresh, path)


def end(code, stderr=""):
    """Ends with an exit code and a complaint."""
    if stderr:
        print(stderr, file=sys.stderr)
    sys.exit(code)
