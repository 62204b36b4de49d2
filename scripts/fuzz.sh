#!/usr/bin/env bash
# Makes up profiles, regular expressions in them, or what a dispatcher may send to its warden, and looks for one that breaks
# what must hold of all (tests/fuzz/oracle). Needs a nightly toolchain; cargo-fuzz is installed if it is missing.
#
#   scripts/fuzz.sh                  profiles, until one breaks it or somebody ends it
#   scripts/fuzz.sh regex 1800       regular expressions, for 1800 seconds
#   scripts/fuzz.sh wire             messages
#
# What it learns is kept in tests/fuzz/target/corpus, what breaks it in tests/fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly target=${1:-profile} seconds=${2:-0}
readonly learned=tests/fuzz/target/corpus/$target

cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet cargo-fuzz --locked
mkdir -p "$learned"
# There is no unsafe code in what is tried, and the address sanitizer makes every new stack expensive.
exec cargo +nightly fuzz run --fuzz-dir tests/fuzz --sanitizer none "$target" "$learned" "tests/fuzz/corpus/$target" -- \
    -dict=tests/fuzz/sbpl.dict -max_len=4096 -timeout=20 -rss_limit_mb=3000 -entropic_scale_per_exec_time=1 \
    -max_total_time="$seconds"
