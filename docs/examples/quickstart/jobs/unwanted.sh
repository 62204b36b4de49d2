#!/usr/bin/env bash
# Never runs: nobody listed the repository, or the code comes from a fork, or the job belongs in a VM.
set -euo pipefail

echo "this must not be seen"
