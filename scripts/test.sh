#!/usr/bin/env bash
# Every check of this repository, after installing what they need. A check that fails does not keep the
# others from running; the table at the end says which did. Ends with 1 if any failed.
#
#   scripts/test.sh             every check
#   scripts/test.sh fmt tests   only those, without installing anything
#
# Runs as root, or as a user with sudo. The accounts `_ephemerd` and `_ephemerd1` to `_ephemerd4`, which
# tests run jobs as, are created once and stay.
#
# Every check is a function, called by its name.
# shellcheck disable=SC2317
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source-path=SCRIPTDIR source=need.sh
. scripts/need.sh

readonly MAC=aarch64-apple-darwin
# What a check ends with when it could not look.
readonly SKIPPED=77

only=("$@")
verdicts=()
failed=0

# Runs a check, in a shell of its own in which the first failing command ends it, and notes its verdict; does
# nothing if others were asked for: check NAME COMMAND…
check() {
    local name=$1 began=$SECONDS code=0 verdict
    shift
    if ((${#only[@]} > 0)) && [[ " ${only[*]} " != *" $name "* ]]; then
        return
    fi
    heading "$name"
    # Not `( … ) || code=$?`: bash would ignore `set -e` inside.
    set +e
    (
        set -e
        "$@"
    )
    code=$?
    set -e
    case $code in
        0) verdict=ok ;;
        "$SKIPPED") verdict=skipped ;;
        *)
            verdict=FAILED
            failed=1
            ;;
    esac
    verdicts+=("$(printf '%-12s %-8s %5d s' "$name" "$verdict" $((SECONDS - began)))")
}

# Installs what the checks need.
tools() {
    need_rust
    need git=git make=make cc=gcc /usr/include/stdio.h=libc6-dev /usr/bin/python3=python3 bwrap=bubblewrap \
        shellcheck=shellcheck /usr/sbin/useradd=passwd /usr/sbin/nft=nftables /usr/sbin/ip=iproute2 \
        /usr/bin/nsenter=util-linux /usr/bin/findmnt=util-linux /usr/sbin/mkfs.ext4=e2fsprogs
    # The service under a systemd that is booted for the test.
    need /lib/systemd/systemd=systemd /usr/bin/systemd-analyze=systemd /usr/sbin/logrotate=logrotate \
        /usr/bin/dbus-daemon=dbus
    # Guests that are real: containers of busybox, and a machine.
    need /usr/bin/runc=runc /bin/busybox=busybox-static
    # Its kernel has the Landlock that the sandbox needs, so that there can be jobs in it.
    SUITE=trixie scripts/vm-image.sh >/dev/null
    # The judges of the metrics and of the page.
    need promtool=prometheus /usr/bin/chromium=chromium
    # The tests of `provision` stand in for what is macOS's own; these are the same everywhere, and taken from here.
    need curl=curl tar=tar unzip=unzip
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
    [[ -d $(rustc --print sysroot)/lib/rustlib/$MAC ]] || rustup target add "$MAC"
    cargo nextest --version >/dev/null 2>&1 || cargo install --quiet cargo-nextest --locked
    cargo deny --version >/dev/null 2>&1 || cargo install --quiet cargo-deny --version 0.20.2 --locked --debug
}

# The top level holds what belongs there and nothing else.
top_level() {
    local entry strangers=()
    for entry in *; do
        case $entry in
            Cargo.toml | Cargo.lock | src | profiles | provision | pf | docs | tests | scripts) ;;
            README.md | LICENSE* | target) ;;
            *) strangers+=("$entry") ;;
        esac
    done
    if ((${#strangers[@]} > 0)); then
        echo "does not belong at the top level: ${strangers[*]}"
        return 1
    fi
}

# `cfg(target_os)` stands only where one name has an implementation per system; everywhere else the system is
# a value, so that the code of both is compiled and tested on either.
platforms() {
    local offenders
    offenders=$(grep -rnE --include='*.rs' '\b(target_os|target_family|target_vendor)\b|cfg!?\((unix|windows)\)' src |
        grep -vE '^src/(host|sandbox|probe)\.rs:' |
        grep -vE '^[^:]+:[0-9]+: *//') || true
    if [[ -n $offenders ]]; then
        echo "only src/host.rs, src/sandbox.rs and src/probe.rs may ask for the system; take an Os instead:"
        echo "$offenders"
        return 1
    fi
}

# Every script is clean.
shell_scripts() {
    local scripts
    mapfile -t scripts < <(find . -path ./target -prune -o -path ./.git -prune -o -name '*.sh' -print)
    shellcheck --external-sources .ci/run "${scripts[@]}"
}

# Lints, for this system.
lints() {
    cargo clippy --quiet --locked --all-targets -- -D warnings
}

# Lints and types, for macOS. Nothing links, so dependencies' C code need not really be compiled.
lints_macos() {
    CC_aarch64_apple_darwin=$PWD/scripts/stub-cc.sh AR_aarch64_apple_darwin=/bin/true \
        cargo clippy --quiet --locked --target "$MAC" --all-targets -- -D warnings
}

# The documentation of the code builds without a warning.
rustdoc() {
    RUSTDOCFLAGS='-D warnings' cargo doc --quiet --locked --no-deps
}

# The accounts tests run jobs as. /dev/null is a configuration in which everything is left at its default.
accounts() {
    cargo build --quiet --locked --target-dir target
    as_root target/debug/ephemerd --config /dev/null host setup
}

# Tests of every kind but those in documentation. They run other accounts' processes, which must get to what is built and
# lies here: where a folder above is closed to them, as a home is, the tree is mounted where it is not, for the tests alone.
tests() {
    # A snapshot that differs fails; it leaves no file for review in the tree.
    local run=(env INSTA_UPDATE=no cargo nextest run --locked --no-fail-fast --status-level slow --final-status-level fail)
    if ((EUID != 0)) || setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$PWD/scripts/test.sh"; then
        "${run[@]}"
        return
    fi
    local open code=0
    open=$(mktemp --directory /var/lib/ephemerd-tests.XXXXXX)
    chmod 755 "$open"
    # Gone with the namespace, however that ends.
    # shellcheck disable=SC2016
    unshare --mount bash -c 'mount --bind . "$0" && cd "$0" && "$@"' "$open" "${run[@]}" || code=$?
    rmdir "$open"
    return "$code"
}

# Examples in documentation.
doc_tests() {
    cargo test --quiet --locked --doc
}

# Licences, duplicates and sources of dependencies.
dependencies() {
    cargo deny --locked --config .deny.toml check --hide-inclusion-graph licenses bans sources
}

# Known faults of dependencies, if the database of them can be had.
advisories() {
    local said
    if ! said=$(timeout 120 cargo deny --config .deny.toml fetch db 2>&1); then
        printf 'not checked: the database could not be fetched\n%s\n' "$(grep . <<<"$said" | tail -n 1)"
        return "$SKIPPED"
    fi
    cargo deny --locked --config .deny.toml check --disable-fetch advisories
}

check tools tools
check top-level top_level
check platforms platforms
check shellcheck shell_scripts
check fmt cargo fmt --check
check clippy lints
check clippy-macos lints_macos
check rustdoc rustdoc
check accounts accounts
check tests tests
check doc-tests doc_tests
check dependencies dependencies
check advisories advisories

if ((${#verdicts[@]} == 0)); then
    complain "there is no check called ${only[*]}"
    exit 2
fi
heading "summary"
printf '%s\n' "${verdicts[@]}"
exit "$failed"
