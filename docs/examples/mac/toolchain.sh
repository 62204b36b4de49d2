#!/bin/sh
# A job for docs/mac-acceptance.md: what builds need, each by itself, with what became of it. Ends with the number of
# those that failed.
#
# What is tried is a shell of its own, whose variables expand there.
# shellcheck disable=SC2016
failed=0

try() {
    name=$1
    shift
    if said=$("$@" 2>&1); then
        echo "ok      $name"
    else
        code=$?
        failed=$((failed + 1))
        echo "FAILED  $name: exit $code: $(printf '%s' "$said" | head -n 1)"
    fi
}

have() {
    command -v "$1" >/dev/null 2>&1
}

try "the account is a slot's" sh -c 'id -un | grep -q "^_ephemerd"'
try "HOME can be written" sh -c 'echo x > "$HOME/file"'
try "TMPDIR can be written" sh -c 'echo x > "$TMPDIR/file"'
try "the folder above can be listed" ls ..
try "the working folder has a name" /bin/pwd
try "the time zone is known" date +%Z
try "own processes can be ended" sh -c 'sleep 60 & kill $!'
try "a server on localhost can be reached" sh -c \
    'port=${EPHEMERD_PORTS%-*}; (echo hello | nc -l localhost "$port" &) ; sleep 1; nc localhost "$port" < /dev/null | grep -q hello'
try "git" sh -c 'git init -q repo && cd repo && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first'
printf 'int main(void) { return 0; }\n' > main.c
try "clang" sh -c 'cc -o main main.c && ./main'
try "codesign, ad hoc" codesign --force --sign - main
have swiftc && printf 'print("hello")\n' > main.swift && try "swiftc" sh -c 'swiftc -o hello main.swift && ./hello'
have python3 && try "python3" python3 -c 'import ssl, multiprocessing; multiprocessing.Lock()'
have ruby && try "ruby" ruby -e 'require "openssl"'
have node && try "node" node -e 'require("os").userInfo()'
have go && printf 'package main\nfunc main() {}\n' > main.go && try "go" go run main.go
have cargo && try "cargo" sh -c 'cargo new --quiet crate && cd crate && cargo build --quiet --offline'
have dotnet && try "dotnet" dotnet --info
have brew && try "brew" brew list
exit "$failed"
