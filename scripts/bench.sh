#!/usr/bin/env bash
# Measures ephemerd against bubblewrap in the same run. Usage: scripts/bench.sh [launch|jobs|greedy|profile|egress|provision|github|vm]
#
# Each benchmark ends with a line `RESULT <name> key=value …`; ratios below 1 in `launch` mean faster than
# bubblewrap, ratios above 1 in `jobs` mean more jobs per second than bubblewrap; `egress` compares its rules with none,
# `provision` a check of a hundred items with its slowest probe alone, and `github` the start of a runner with a copy of its
# tree, for which it needs 2 GB of disk for a while; `vm` compares a guest with a native job, and `greedy` a
# job beside one that takes what it can with the same job alone.
# Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ $EUID -ne 0 ]]; then
  echo "error: the benchmarks run jobs as other accounts and need root" >&2
  exit 1
fi
# shellcheck source-path=SCRIPTDIR source=need.sh
. scripts/need.sh
need bwrap=bubblewrap /usr/sbin/nft=nftables /usr/sbin/ip=iproute2 /usr/bin/python3=python3
cargo build --release --quiet
./target/release/ephemerd host setup >/dev/null

benches=("$@")
[[ ${#benches[@]} -gt 0 ]] || benches=(launch jobs greedy profile egress provision github vm)
for bench in "${benches[@]}"; do
  case "$bench" in
    launch | jobs | greedy | profile | egress | provision | github) cargo bench --quiet --bench "$bench" ;;
    vm)
      SUITE=trixie scripts/vm-image.sh >/dev/null
      cargo bench --quiet --bench vm
      ;;
    *)
      echo "error: there is no benchmark \`$bench\`" >&2
      echo "hint: there are launch, jobs, greedy, profile, egress, provision, github and vm" >&2
      exit 2
      ;;
  esac
done
