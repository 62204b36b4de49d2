#!/usr/bin/env bash
# A C compiler that compiles nothing: it makes an empty file of what follows -o. Lint and type checks for
# macOS never link, so what dependencies' C code compiles to is never looked at (scripts/test.sh).
set -euo pipefail

while (($# > 0)); do
    if [[ $1 == -o && $# -gt 1 ]]; then
        shift
        : >"$1"
    fi
    shift
done
