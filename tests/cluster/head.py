"""A Ray cluster of one machine, told what to serve line by line; it ends with its standard input.

    python -m tests.cluster.head PORT

Reads one JSON object a line: the arguments of `app.ray_app.service`, or a whole Serve config, which has "applications".
Answers each with a line that begins with "served" or "refused". A first line says "up".
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

import ray
from ray import serve
from ray.serve.context import _get_global_client as get_global_client
from ray.serve.schema import ServeDeploySchema

from app.ray_app import service

SETTLED_S = 170.0


def main() -> None:
    port = int(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="kr-", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=8, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False, _temp_dir=folder
        )
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            say("up")
            for line in sys.stdin:
                say(deployed(json.loads(line)))
        finally:
            serve.shutdown()
            ray.shutdown()


def deployed(wanted: dict[str, Any]) -> str:
    try:
        if "applications" in wanted:
            # What `serve deploy` does once its request has reached the dashboard, which needs ports of its own.
            get_global_client().deploy_apps(ServeDeploySchema.model_validate(wanted), _blocking=False)
            return settled()
        else:
            serve.run(service(wanted), name="karyon", route_prefix="/")
    except Exception as error:
        return f"refused {error}".replace("\n", " ")
    return "served"


def settled() -> str:
    """What the application has come to; replicas that go have 30 s for those who still ask them."""
    end = time.monotonic() + SETTLED_S
    while time.monotonic() < end:
        time.sleep(1)
        state = serve.status().applications["karyon"]
        if state.status == "RUNNING":
            return "served"
        if state.status == "DEPLOY_FAILED":
            return f"refused {state.message}".replace("\n", " ")
    return f"refused {state.status} {state.message}".replace("\n", " ")


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
