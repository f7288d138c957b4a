"""Karyon: nuclei analysis of H&E tissue as a service."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("karyon")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
