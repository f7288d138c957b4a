"""A Ray cluster of one machine, told what to serve line by line; it ends with its standard input.

    python -m tests.cluster.head PORT

Reads the arguments of `app.ray_app.service`, one JSON object a line; answers each with a line that begins with "served"
or "refused". A first line says "up".
"""

from __future__ import annotations

import json
import sys
import tempfile

import ray
from ray import serve

from app.ray_app import Arguments, service


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


def deployed(arguments: dict[str, object]) -> str:
    try:
        serve.run(service(Arguments.model_validate(arguments)), name="karyon", route_prefix="/")
    except Exception as error:
        return f"refused {error}".replace("\n", " ")
    return "served"


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
