#!/usr/bin/env bash
# Writes more than three times the output a job may keep. The log is cut and says so; the job goes on.
set -euo pipefail

seq 1 40000
