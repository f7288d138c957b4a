"""How is a graph kept small? Weights as int8, one scale per output channel, expanded when the graph is loaded.

This saves space in a repository and on the wire, not time: ONNX Runtime folds the expansion into float32 weights when a
session starts. What it costs in accuracy is measured, never assumed: see `training.export --weights int8`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from app.nuclei.types import Float32

SMALLEST = 1024
"""Weights of fewer numbers stay float32: they weigh little and matter much."""


def shrink(path: Path) -> None:
    """Rewrite a graph in place with the weights of its convolutions as int8.

    Args:
        path: an ONNX file with float32 weights.
    """
    model = onnx.load(path)
    graph = model.graph
    kernels = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    kept, added, nodes = [], [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name not in kernels or values.size < SMALLEST or values.dtype != np.float32:
            kept.append(tensor)
            continue
        codes, scales = quantise(values)
        added += [
            numpy_helper.from_array(codes, f"{tensor.name}_int8"),
            numpy_helper.from_array(scales, f"{tensor.name}_scale"),
        ]
        nodes += [
            helper.make_node("Cast", [f"{tensor.name}_int8"], [f"{tensor.name}_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{tensor.name}_float", f"{tensor.name}_scale"], [tensor.name]),
        ]
    nodes += list(graph.node)
    del graph.initializer[:], graph.node[:], graph.value_info[:]
    graph.initializer.extend(kept + added)
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def quantise(weights: Float32) -> tuple[np.ndarray, Float32]:
    """Round each output channel to -127..127 of its largest magnitude.

    Args:
        weights: (O, I, kH, kW) float32.

    Returns:
        (O, I, kH, kW) int8 and (O, 1, 1, 1) float32 scales; their product is within half a scale of the weights.
    """
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(weights / scales).astype(np.int8), scales
