#!/usr/bin/env bash
# A server on a port of this slot's range, queried over localhost, as integration tests do.
set -euo pipefail

port=${EPHEMERD_PORTS%-*}
echo "hello from $EPHEMERD_JOB_ID" >index.html
python3 -m http.server --bind 127.0.0.1 "$port" 2>server.log &

python3 - "$port" <<'PYTHON'
import sys
import time
import urllib.error
import urllib.request

url = f"http://127.0.0.1:{sys.argv[1]}/"
for attempt in range(100):
    try:
        print(url, "answers:", urllib.request.urlopen(url).read().decode().strip())
        break
    except urllib.error.URLError:
        time.sleep(0.05)
else:
    sys.exit("the server does not answer")
PYTHON
# The server is still running when this script ends.
