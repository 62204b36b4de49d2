#!/usr/bin/env bash
# Tries an address that jobs are kept from. It is one of this host's own, which ephemerd gave its loopback interface for
# such attempts: nothing leaves the host.
if (echo hello >/dev/udp/192.0.0.8/9) 2>error; then
    echo "reached 192.0.0.8"
    exit 1
fi
cat error
echo hello >/dev/udp/127.0.0.1/9
echo "kept from 192.0.0.8, and not from loopback"
