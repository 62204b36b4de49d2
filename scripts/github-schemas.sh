#!/usr/bin/env bash
# Fetches GitHub's published description of its API and of its webhooks, and keeps what tests/github needs.
#
#   scripts/github-schemas.sh           writes tests/fixtures/github/ anew
#   scripts/github-schemas.sh --check   only says whether the files there are what the packages contain
#
# The packages come from the registry that npm is configured with, by exact version and hash, and stay in
# target/github-schemas/. The tests themselves need no network: what this writes is committed.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source-path=SCRIPTDIR source=need.sh
. scripts/need.sh

readonly OPENAPI=octokit-openapi-23.0.2.tgz
readonly SCHEMAS=octokit-webhooks-schemas-7.6.1.tgz
readonly EXAMPLES=octokit-webhooks-examples-7.6.1.tgz
readonly CACHE=target/github-schemas
readonly FIXTURES=tests/fixtures/github

# Fetches a package unless it is there, and fails unless its SHA-512 is the expected one: fetch FILE PACKAGE HASH
fetch() {
    local file=$CACHE/$1 found
    [[ -f $file ]] || npm pack --silent --pack-destination "$CACHE" "$2" >/dev/null
    found=$(openssl dgst -sha512 -binary "$file" | base64 --wrap=0)
    if [[ $found != "$3" ]]; then
        rm -f "$file"
        complain "$1 has the hash sha512-$found, not sha512-$3; it is removed"
        return 1
    fi
}

need npm=npm openssl=openssl /usr/bin/python3=python3
mkdir -p "$CACHE"
fetch "$OPENAPI" @octokit/openapi@23.0.2 \
    pV8M7L9GY23AybNvTmo2nyjmpmnt6+2sRE/tqr0ZLQcPS4lnw7u5eZGNmwRNkBC3D7gZXbFx5AHzLUVRBXGDhg==
fetch "$SCHEMAS" @octokit/webhooks-schemas@7.6.1 \
    qW0Bwtb76r4m2WzVhKDyfEeEnt1GEQoRjkCqmq2ZeB0nNVDJ+Z2LBDS9FDPyduuMXf/ZTWiCJp9PFFHgRfBe3A==
fetch "$EXAMPLES" @octokit/webhooks-examples@7.6.1 \
    De6U3XB6O3DtCa7bKgCMzTHdeopqqZ6SNivMYJnK65ierKL1AnNIA0tkRYCRS7lwGT792d+Ps1WbfHlso6MynQ==

target=$FIXTURES
if [[ ${1-} == --check ]]; then
    target=$CACHE/reduced
    mkdir -p "$target"
fi
python3 scripts/github-schemas.py \
    "$CACHE/$OPENAPI" "$CACHE/$SCHEMAS" "$CACHE/$EXAMPLES" "$target"
if [[ ${1-} == --check ]]; then
    for file in "$target"/*; do
        cmp "$file" "$FIXTURES/${file##*/}"
    done
fi
