"""Karyon: nuclei analysis of H&E tissue as a service."""

import os
from importlib.metadata import PackageNotFoundError, version

# From 1.29 on ONNX Runtime reports its use to its makers, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

try:
    __version__ = version("karyon")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
