#!/bin/sh
# For docs/mac-acceptance.md, as root after jobs have ended: what is left of the accounts of the slots. Prints one line
# for each thing found, and nothing when all is gone.
set -eu

for account in $(dscl . -list /Users | grep '^_ephemerd[0-9]*$'); do
    uid=$(id -u "$account")
    ps -U "$uid" -o pid=,command= | sed "s/^/process of $account: /"
    launchctl print "user/$uid" > /dev/null 2>&1 && echo "launchd domain: user/$uid of $account"
    ipcs -a | awk -v a="$account" '$5 == a || $6 == a { print "IPC object: " $0 }'
    find -x /private/tmp /private/var/tmp /Users/Shared -user "$account" -exec echo "file: {}" \;
    find -x /private/var/folders -mindepth 2 -maxdepth 2 -user "$account" -exec echo "folder: {}" \;
    test ! -e "/private/var/at/tabs/$account" || echo "crontab: of $account"
done
for job in "${1:-/var/lib/ephemerd}"/native/*; do
    test ! -e "$job" || echo "workspace: $job"
done
