"""What learns: networks, data, recipes, export and scores."""

import os

# As in app/__init__.py: ONNX Runtime tells nobody of its use.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
