#!/usr/bin/env bash
# Never ends; it is submitted with a time limit.
set -euo pipefail

echo "waiting for something that never comes"
sleep infinity
