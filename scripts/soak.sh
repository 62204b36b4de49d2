#!/usr/bin/env bash
# Two daemons that serve one repository of a GitHub made for tests, which fails by chance, with many jobs of every kind:
# each must end once, and nothing may be left. Ends with a line `RESULT soak key=value …`.
#
#   scripts/soak.sh              500 jobs, from a seed by chance, which is printed
#   scripts/soak.sh 60 4711      60 jobs, from this seed
#   scripts/soak.sh life         10,000 jobs of nothing and 200 of work in one life of a daemon, after which it must hold no
#                                more than after the first thousand
#
# Runs as root. The accounts of the tests' slots are created once and stay.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ $EUID -ne 0 ]]; then
  echo "error: the daemons run jobs as other accounts and need root" >&2
  exit 1
fi
if [[ ${1:-} == life ]]; then
  exec cargo test --quiet --locked --test native -- --ignored --exact --nocapture \
    load::ten_thousand_jobs_in_one_life_of_a_daemon_add_nothing_up
fi
export EPHEMERD_SOAK_JOBS=${1:-500} EPHEMERD_SOAK_SEED=${2:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
exec cargo test --quiet --locked --test native -- --ignored --exact --nocapture \
  github::soak::two_hosts_and_a_github_that_fails_end_each_of_many_jobs_once_and_leave_nothing
