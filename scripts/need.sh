# shellcheck shell=bash
# What the other scripts have in common: installing what a fresh Debian machine with only Rust lacks.
# Sourced, never run.

# rustup's folder may not be on the PATH of a shell that is no login shell.
if ! command -v cargo >/dev/null && [[ -x ${CARGO_HOME:-$HOME/.cargo}/bin/cargo ]]; then
    PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
fi

# Prints a heading.
heading() {
    printf '\n== %s\n' "$*"
}

# Prints what went wrong, to standard error.
complain() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# Runs a command as root.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        complain "\`$*\` needs root, and there is no sudo"
        return 1
    fi
}

# Installs Debian packages. The lists of packages are fetched first: a fresh machine has none.
install_packages() {
    if ! command -v apt-get >/dev/null; then
        complain "missing, and this is not Debian: $*"
        return 1
    fi
    echo "installing $*"
    as_root apt-get update -qq || complain "the lists of packages could not be fetched; trying those at hand"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# Installs the packages of those files and programs that are missing; each argument is PROGRAM=PACKAGE or
# /FILE=PACKAGE.
need() {
    local pair what missing=()
    for pair in "$@"; do
        what=${pair%%=*}
        if [[ $what == /* ]]; then
            [[ -e $what ]] || missing+=("${pair#*=}")
        else
            command -v "$what" >/dev/null || missing+=("${pair#*=}")
        fi
    done
    if ((${#missing[@]} > 0)); then
        install_packages "${missing[@]}"
    fi
}

# Fails with a hint unless there is a Rust toolchain.
need_rust() {
    command -v cargo >/dev/null && return
    complain "Rust is missing"
    echo "hint: install it as https://rustup.rs says" >&2
    return 1
}
