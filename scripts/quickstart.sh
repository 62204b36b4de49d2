#!/usr/bin/env bash
# Shows ephemerd at work on this machine: builds it, starts the daemon with docs/examples/quickstart, hands it
# a dozen jobs of several repositories, and counts what they left behind. Needs Debian, Rust, and root or sudo.
#
# With --github, the jobs come from a GitHub made for tests instead, with a stand-in for its runner: a push, pull
# requests of all kinds, a fork that steals a runner, a matrix, and what becomes of each.
#
# It ends with 0 if every job ended as it should and nothing is left. Whatever it makes it removes again: the
# data folder, and the accounts that were not there before. Packages that it had to install stay.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source-path=SCRIPTDIR source=need.sh
. scripts/need.sh

readonly EXAMPLE=docs/examples/quickstart
# Everything this script makes outside the repository, accounts apart. The configuration names the folder
# `data` in it.
readonly PLACE=/var/lib/ephemerd-quickstart
readonly CONFIG=$PLACE/ephemerd.toml
readonly OUTPUT=$PLACE/output
# Where jobs look for programs unless they are told otherwise.
readonly JOB_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

daemon=
family=
names=()
created=()
waiting=()
launched=0

# The program, with the quickstart's configuration.
ephemerd() {
    "$PLACE/bin/ephemerd" --config "$CONFIG" "$@"
}

# Says what is wrong and ends.
die() {
    complain "$@"
    exit 1
}

# Installs what is missing and builds the program.
prepare() {
    heading "building"
    need_rust
    # Where jobs will find them: a Python in somebody's home folder is none to a job.
    PATH=$JOB_PATH need make=make cc=gcc /usr/include/stdio.h=libc6-dev git=git python3=python3 useradd=passwd \
        /usr/sbin/nft=nftables /usr/sbin/ip=iproute2
    echo "this takes some minutes the first time"
    local quiet=()
    [[ -t 2 ]] || quiet=(--quiet)
    cargo build "${quiet[@]}" --release --locked --target-dir target
    if [[ $1 == --github ]]; then
        cargo build "${quiet[@]}" --release --locked --target-dir target --example github-demo
    fi
}

# Fails while another quickstart runs; removes what one left that was killed.
only_one() {
    if [[ -e $PLACE ]]; then
        ephemerd status >/dev/null 2>&1 && die "another quickstart is running"
        rm -rf "$PLACE"
    fi
}

# Makes the folder with program and configuration: the example, and what only this machine knows.
# furnish PROGRAM SYSROOT
furnish() {
    # Jobs pass through the first two to their workspaces and to the program; the third is ours alone.
    install -d -m 755 "$PLACE" "$PLACE/bin"
    install -d -m 700 "$OUTPUT"
    install -m 755 "$1" "$PLACE/bin/ephemerd"
    cp "$EXAMPLE/ephemerd.toml" "$CONFIG"
    cat >>"$CONFIG" <<TOML

[repos."acme/crate"]
extra_read = ["$2"]

[repos."acme/hostile"]
extra_read = ["$PLACE/bin"]
TOML
    ephemerd config check >/dev/null
}

# Prints the value of a key of the configuration.
setting() {
    ephemerd config show | sed -n "s/^${1//./\\.} = \"\{0,1\}\([^\" ]*\).*/\1/p"
}

# Creates the accounts jobs run as, and notes which were not there before.
accounts() {
    local name slot
    family=$(setting host.account)
    names=("$family")
    for ((slot = 1; slot <= $(setting native.slots); slot++)); do
        names+=("$family$slot")
    done
    for name in "${names[@]}"; do
        getent passwd "$name" >/dev/null || created+=("$name")
    done
    # Not to be interrupted between two accounts: useradd would go on while we clean up.
    (
        trap '' INT
        ephemerd host setup
    )
}

# Puts right what this host lacks, and lets the daemon run jobs on it. What had to be installed stays.
enable() {
    if ! ephemerd provision --apply >"$PLACE/provision"; then
        cat "$PLACE/provision" >&2
        die "this host does not have what its manifest says"
    fi
    ephemerd host enable | tail -n 1
}

# Starts the daemon and waits until it answers. In a session of its own, for Ctrl-C is meant for this script,
# which then stops the daemon.
start() {
    setsid "$PLACE/bin/ephemerd" --config "$CONFIG" run >"$PLACE/daemon.log" 2>&1 &
    daemon=$!
    until ephemerd status >/dev/null 2>&1; do
        if ! kill -0 "$daemon" 2>/dev/null; then
            cat "$PLACE/daemon.log" >&2
            die "the daemon did not start"
        fi
        sleep 0.05
    done
}

# Submits a job in the background, which fails unless the job ends with the code and prints the text:
# launch SCRIPT REPO CODE TEXT [SUBMIT-OPTION…]
launch() {
    local script=$1 repo=$2 wanted=$3 text=$4 code=0 verdict=ok output
    shift 4
    launched=$((launched + 1))
    output=$OUTPUT/$launched
    (
        ephemerd submit --wait --repo "$repo" "$@" -- bash -c "$(<"$EXAMPLE/jobs/$script.sh")" \
            >"$output" 2>&1 || code=$?
        if [[ $code != "$wanted" ]] || ! grep -qF -- "$text" "$output"; then
            verdict="WRONG: expected $wanted and \"$text\""
        fi
        [[ -t 1 ]] || printf '%-13s %-10s ended with %3d  %s\n' "$repo" "$script" "$code" "$verdict"
        [[ $verdict == ok ]] || tail -n 20 "$output" >"$output.wrong"
    ) &
    waiting+=("$!")
}

# Hands over every job. Those of one repository take turns with the others'.
submit() {
    launch c-make acme/sum 0 "2 tests passed"
    launch git-python acme/weather 0 "Ran 2 tests"
    launch cargo acme/crate 0 "1 passed" --env "PATH=$1/bin:$JOB_PATH"
    launch server acme/site 0 "answers: hello"
    launch hostile acme/hostile 0 " 0 broken" --env "PATH=$PLACE/bin:$JOB_PATH"
    launch lan acme/curious 0 "kept from 192.0.0.8"
    launch litter acme/litter 0 "left a process"
    launch flood acme/chatty 0 "[ephemerd: output cut here"
    launch failing acme/weather 3 "1 test failed"
    launch endless acme/sum 124 "timed out" --timeout 1s
    launch unwanted stranger/sum 125 "trust.default"
    launch unwanted acme/sum 125 "fork" --event pull_request --head stranger/sum
    launch unwanted acme/legacy 125 "no VM backend"
}

# Runs the flows of GitHub, with the program that makes them: flows PROGRAM
flows() {
    local from to line program
    coproc DEMO { exec "$1" "$PLACE" 2>&1; }
    # Bash forgets these with the program's end.
    # shellcheck disable=SC2153
    from=${DEMO[0]} to=${DEMO[1]} program=$DEMO_PID
    read -r line <&"$from"
    [[ $line == ready ]] || die "the GitHub for tests does not start: $line"
    cat "$PLACE/github.toml" >>"$CONFIG"
    ephemerd config check >/dev/null
    start
    heading "what GitHub lets this host do"
    ephemerd github check
    heading "jobs"
    echo go >&"$to"
    cat <&"$from" || true
    wait "$program"
}

# Waits for every job; on a terminal it shows them meanwhile. Those not submitted yet are not in the table.
watch() {
    local table="" lines=0 width
    if [[ -t 1 ]]; then
        read -r _ width < <(stty size </dev/tty 2>/dev/null) || true
        ((${width:-0} > 0)) || width=100
        while :; do
            # Up to where the last table began, and clear from there (ECMA-48).
            ((lines == 0)) || printf '\e[%dA\e[J' "$lines"
            table=$(ephemerd jobs --all | cut -c "1-$width")
            printf '%s\n' "$table"
            lines=$(wc -l <<<"$table")
            jobs -rp | grep -qvx "$daemon" || break
            sleep 0.2
        done
        printf '\e[%dA\e[J' "$lines"
    fi
    wait "${waiting[@]}"
}

# Prints each attempt of the hostile job under what stopped it. What only a look from outside can tell, whether
# a process it left survived above all, is among what is counted next.
attempts() {
    local report
    report=$(grep -l '^attempt ' "$OUTPUT"/*)
    echo "What the hostile job attempted, by what stopped it ($(grep ' held, ' "$report")):"
    awk '$2 == "held" { stopped[$3] = stopped[$3] " " $1 }
        $2 == "BROKEN" { stopped["NOTHING"] = stopped["NOTHING"] " " $1 }
        END { for (by in stopped) print by ":" stopped[by] }' "$report" |
        sort | fold -s -w 98 | sed '/^[A-Z0-9]*:/!s/^/    /; s/ $//'
}

# Counts what the jobs left on this host, with nothing of ephemerd's; prints it and fails unless it is nothing.
leftovers() {
    local uid uids owned=(-false) shared=() folder processes files folders mounts ipc
    mapfile -t uids < <(for name in "${names[@]:1}"; do id -u "$name"; done)
    # Real, effective, saved or file system uid (proc(5)); one that ends while we look is no leftover.
    processes=$(cat /proc/[0-9]*/status 2>/dev/null |
        awk -v uids=" ${uids[*]} " '/^Uid:/ { for (i = 2; i <= 5; i++) if (index(uids, " " $i " ")) { n++; break } }
            END { print n + 0 }')
    for uid in "${uids[@]}"; do
        owned+=(-o -uid "$uid")
    done
    for folder in /tmp /var/tmp /dev/shm /dev/mqueue /run /run/lock /var/spool; do
        [[ ! -d $folder ]] || shared+=("$folder")
    done
    files=$(find "${shared[@]}" -xdev -ignore_readdir_race \( "${owned[@]}" \) | wc -l)
    folders=$(find "$PLACE/data/native" -mindepth 1 -maxdepth 1 | wc -l)
    mounts=$(grep -cF " $PLACE" /proc/self/mountinfo || true)
    # The owner is the eighth column of shm and msg, the fifth of sem.
    ipc=$(awk -v uids=" ${uids[*]} " 'FNR > 1 && index(uids, " " (FILENAME ~ /sem/ ? $5 : $8) " ") { n++ }
        END { print n + 0 }' /proc/sysvipc/{shm,msg,sem})
    echo "Left behind, counted without ephemerd: $processes processes, $files files in shared folders," \
        "$folders workspaces, $mounts mounts, $ipc IPC objects."
    ((processes + files + folders + mounts + ipc == 0))
}

# Stops the daemon and removes what this script made, however it ends; its exit code stays, unless this fails.
clean_up() {
    local code=$? index
    trap - EXIT
    trap '' INT TERM
    set +e
    kill "${waiting[@]}" 2>/dev/null
    if [[ -n $daemon ]]; then
        kill "$daemon" 2>/dev/null
        wait "$daemon" || complain "the daemon ended with $?"
        # Rules outlive the daemon; those of accounts that go now are nobody's.
        ephemerd egress remove || code=1
    fi
    # The service account comes last, with the group that is the others' too.
    for ((index = ${#created[@]} - 1; index >= 0; index--)); do
        if getent passwd "${created[index]}" >/dev/null; then
            userdel "${created[index]}" || code=1
        fi
    done
    if [[ ${created[0]:-} == "$family" ]] && getent group "$family" >/dev/null; then
        groupdel "$family" || code=1
    fi
    rm -rf "$PLACE" || code=1
    exit "$code"
}

# The part that needs root: demonstrate PROGRAM SYSROOT [PROGRAM-OF-GITHUB]
demonstrate() {
    local result=0
    only_one
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    furnish "$1" "$2"
    heading "accounts"
    accounts
    heading "what this host must have"
    enable
    if [[ -n ${3:-} ]]; then
        flows "$3" || result=1
        heading "result"
        ephemerd jobs --all
    else
        start
        heading "jobs"
        submit "$2"
        watch
        heading "result"
        ephemerd jobs --all
        echo
        attempts
    fi
    echo
    ephemerd egress status | sed -n 1p || result=1
    echo
    leftovers || result=1
    if compgen -G "$OUTPUT/*.wrong" >/dev/null; then
        echo "These jobs did not end as they should:"
        tail -n 20 "$OUTPUT"/*.wrong
        result=1
    fi
    exit "$result"
}

if [[ ${1:-} == --demonstrate ]]; then
    demonstrate "$2" "$3" "${4:-}"
fi
github=()
case ${1:-} in
    "") ;;
    --github) github=("$PWD/target/release/examples/github-demo") ;;
    *) die "usage: scripts/quickstart.sh [--github]" ;;
esac
prepare "${1:-}"
as_root "$PWD/scripts/quickstart.sh" --demonstrate "$PWD/target/release/ephemerd" "$(rustc --print sysroot)" \
    "${github[@]}"
cat <<'END'

All jobs ended as they should, and what this script made is gone again. README.md says how to go on.
END
