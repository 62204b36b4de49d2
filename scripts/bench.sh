#!/usr/bin/env bash
# Measures ephemerd against bubblewrap in the same run. Usage: scripts/bench.sh [launch|jobs|profile]
#
# Each benchmark ends with a line `RESULT <name> key=value …`; ratios below 1 in `launch` mean faster than
# bubblewrap, ratios above 1 in `jobs` mean more jobs per second than bubblewrap. Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ $EUID -ne 0 ]]; then
  echo "error: the benchmarks run jobs as other accounts and need root" >&2
  exit 1
fi
if ! command -v bwrap >/dev/null; then
  apt-get update -qq
  apt-get install -y -qq bubblewrap >/dev/null
fi
cargo build --release --quiet
./target/release/ephemerd host setup >/dev/null

benches=("$@")
[[ ${#benches[@]} -gt 0 ]] || benches=(launch jobs profile)
for bench in "${benches[@]}"; do
  case "$bench" in
    launch | jobs | profile) cargo bench --quiet --bench "$bench" ;;
    *)
      echo "error: there is no benchmark \`$bench\`" >&2
      echo "hint: there are launch, jobs and profile" >&2
      exit 2
      ;;
  esac
done
