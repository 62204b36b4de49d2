#!/usr/bin/env bash
# Fails, as tests do.
set -euo pipefail

echo "1 test failed" >&2
exit 3
