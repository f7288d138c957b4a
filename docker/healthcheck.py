"""Is the Karyon of this container well? Asks one of its probes; the exit status for Docker or the kubelet.

    healthcheck.py [ready|live|startup]

Asks on the admin port if there is one: no load can block it. No proxy is ever asked.
"""

from __future__ import annotations

import http.client
import os
import sys


def main(probe: str = "ready") -> int:
    """0 if the probe answers with 200, else 1; the answer goes to standard output."""
    port = int(os.environ.get("KARYON_ADMIN_PORT") or 0) or int(os.environ.get("KARYON_PORT") or 8000)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        connection.request("GET", f"/healthz/{probe}")
        answer = connection.getresponse()
        print(answer.read().decode())
    except OSError as error:
        print(error)
        return 1
    return int(answer.status != http.client.OK)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
