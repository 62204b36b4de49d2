#!/usr/bin/env bash
# A hostile job: attempts every way out that ephemerd knows of, and says what stopped each.
set -euo pipefail

ephemerd __probe --hostile
