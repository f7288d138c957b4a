"""Which small graphs go before and behind the networks on a device, and how do networks calculate in half precision?

A batch that is averaged over several views crosses to the device once, as it was decoded (`seeing` lays the views
below each other there), and only the mean comes back (`folding`). The weights are in neither, so networks need not be
kept once for each set of views. Needs the package onnx, which the extra `gpu` brings; a CPU does without: there the
flips cost less on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from app.nuclei.ballots import NUCLEUS
from app.nuclei.errors import EngineUnavailable
from app.nuclei.views import View

MAPS = ("np_prob", "hv", "type_prob")
VOTES = "votes"
OPSET, IR = 20, 10
ACTIVATIONS = frozenset({"Softmax", "Tanh"})
"""From these on a network stays in float32: maps near 0 and 1 need the digits."""

REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "GlobalAveragePool"})
"""Stay in float32 too: CUDA divides by the number of pixels in float16, which ends at 65504.

A mean over 256 x 256 pixels is NaN there, or a silent zero (microsoft/onnxconverter-common issue 323).
"""

Model = Any
"""An ONNX ModelProto; the package has no types."""


def seeing(views: Sequence[View]) -> bytes:
    """A graph from `patches` (N, P, P, 3) uint8 to `seen` (V * N, P, P, 3): all of them in one view after the other."""
    graph = _Builder()
    seen = [graph.flipped(graph.transposed("patches") if v.transpose else "patches", v) for v in views]
    graph.add("Concat", seen, "seen", axis=0)
    pixels = ["N", "P", "Q", 3]
    return graph.model([("patches", "UINT8", pixels)], [("seen", "UINT8", ["VN", "P", "Q", 3])])


def folding(views: Sequence[View], members: int) -> bytes:
    """A graph from all members' maps of all views to their mean, every view brought back.

    Inputs are `count` (1,) int64, how many patches are wanted (the rest are padding), and for each member m the maps
    `np_prob.m` (V * N, P, P), `hv.m` (V * N, P, P, 2) and `type_prob.m` (V * N, P, P, C); outputs `np_prob`, `hv` and
    `type_prob` with `count` rows. Members are added before views, each in their order, as on the host. Where there is
    more than one of both together, `votes` (N, P, P) uint8 is an output as well: how many of all these runs take a
    pixel for nucleus (`app.nuclei.ballots`).
    """
    graph = _Builder()
    shapes: dict[str, list[str | int]] = {"np_prob": [], "hv": [2], "type_prob": ["C"]}
    for name in MAPS:
        mean = graph.mean([f"{name}.{m}" for m in range(members)])
        graph.add("Identity", [graph.mean(graph.unseen_all(mean, views, name))], name)
    wide = [
        (f"{name}.{m}", "FLOAT", ["VN", "P", "Q", *shape]) for m in range(members) for name, shape in shapes.items()
    ]
    outputs = [(name, "FLOAT", ["N", "P", "Q", *shape]) for name, shape in shapes.items()]
    if runs(views, members) > 1:
        _vote(graph, views, members)
        outputs.append((VOTES, "UINT8", ["N", "P", "Q"]))
    return graph.model([("count", "INT64", [1]), *wide], outputs)


def runs(views: Sequence[View], members: int) -> int:
    """How many runs there are, one a member and view; with more than one they can disagree."""
    return len(views) * members


def _vote(graph: _Builder, views: Sequence[View], members: int) -> None:
    nucleus, votes = graph.constant(np.float32(NUCLEUS)), []
    for member in range(members):
        taken = graph.add("GreaterOrEqual", [f"np_prob.{member}", nucleus])
        votes.append(graph.add("Cast", [taken], to=graph.onnx.TensorProto.FLOAT))  # bytes cannot be added everywhere
    together = graph.total(graph.unseen_all(graph.total(votes), views, "np_prob"))
    graph.add("Cast", [together], VOTES, to=graph.onnx.TensorProto.UINT8)


def halved(file: Path, convert: Callable[..., Model]) -> bytes:
    """A network that calculates in float16; it still takes uint8 and gives float32.

    Args:
        file: graph as `model_store/README.md` describes it, weights float32 or int8.
        convert: `onnxruntime.transformers.float16.convert_float_to_float16`.
    """
    onnx = _onnx()
    model = onnx.load(file)
    expand(model.graph)
    model = convert(model, keep_io_types=True, node_block_list=_in_float32(model.graph))
    _drop_repeated(model.graph)
    _drop_detours(model.graph)
    content: bytes = model.SerializeToString()
    return content


class _Builder:
    """A graph in the making: names, nodes and constants."""

    def __init__(self) -> None:
        self.onnx = _onnx()
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, op: str, inputs: Sequence[str], outputs: str | list[str] = "", **attributes: Any) -> Any:
        """One node; the name of its output, a fresh one if none is given, or the list of them."""
        named = outputs or f"{op.lower()}{len(self.nodes)}"
        listed = [named] if isinstance(named, str) else named
        self.nodes.append(self.onnx.helper.make_node(op, list(inputs), listed, **attributes))
        return named

    def constant(self, values: Any) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def transposed(self, x: str, rank: int = 4) -> str:
        return str(self.add("Transpose", [x], perm=[0, 2, 1, *range(3, rank)]))

    def flipped(self, x: str, view: View) -> str:
        axes = [axis for axis, on in ((1, view.flip_ud), (2, view.flip_lr)) if on]
        if not axes:
            return x
        far = np.iinfo(np.int64).min
        bounds = [[-1] * len(axes), [far] * len(axes), axes, [-1] * len(axes)]
        return str(self.add("Slice", [x, *(self.constant(np.array(b, np.int64)) for b in bounds)]))

    def unseen(self, x: str, view: View, name: str) -> str:
        x, arrows = self.flipped(x, view), name == "hv"
        if arrows and (view.flip_lr or view.flip_ud):
            signs = [-1 if view.flip_lr else 1, -1 if view.flip_ud else 1]
            x = str(self.add("Mul", [x, self.constant(np.array(signs, np.float32))]))
        if not view.transpose:
            return x
        if arrows:
            x = str(self.add("Gather", [x, self.constant(np.array([1, 0], np.int64))], axis=3))
        return self.transposed(x, rank=3 if name == "np_prob" else 4)

    def unseen_all(self, x: str, views: Sequence[View], name: str) -> list[str]:
        """Maps of all views below each other, each brought back by itself, without the padding."""
        parts = self.add("Split", [x], [f"{x}_{i}" for i in range(len(views))], axis=0, num_outputs=len(views))
        return [self.unseen(self.first(part, "count"), view, name) for part, view in zip(parts, views, strict=True)]

    def first(self, x: str, count: str) -> str:
        zero = self.constant(np.array([0], np.int64))
        return str(self.add("Slice", [x, zero, count, zero], f"{x}_wanted"))

    def total(self, names: Sequence[str]) -> str:
        total = names[0]
        for name in names[1:]:
            total = self.add("Add", [total, name])
        return total

    def mean(self, names: Sequence[str]) -> str:
        total = self.total(names)
        return total if len(names) == 1 else str(self.add("Div", [total, self.constant(np.float32(len(names)))]))

    def model(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> bytes:
        helper = self.onnx.helper
        sides = [
            [
                helper.make_tensor_value_info(name, getattr(self.onnx.TensorProto, kind), shape)
                for name, kind, shape in one
            ]
            for one in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, "karyon", *sides, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        self.onnx.checker.check_model(model)
        content: bytes = model.SerializeToString()
        return content


def expand(graph: Any) -> None:
    """Weights kept as int8 times a scale become float32: what converts a graph wants them so."""
    numpy_helper = _onnx().numpy_helper
    constants = {tensor.name: tensor for tensor in graph.initializer}
    codes = {n.output[0]: n for n in graph.node if n.op_type == "Cast" and n.input[0] in constants}
    for node in [n for n in graph.node if n.op_type == "Mul" and n.input[0] in codes and n.input[1] in constants]:
        cast = codes[node.input[0]]
        used = [constants[cast.input[0]], constants[node.input[1]]]
        numbers, scales = (numpy_helper.to_array(tensor) for tensor in used)
        graph.initializer.append(numpy_helper.from_array(numbers.astype(np.float32) * scales, node.output[0]))
        for gone in (cast, node):
            graph.node.remove(gone)
        for tensor in used:
            graph.initializer.remove(tensor)


def _in_float32(graph: Any) -> list[str]:
    """Names of reductions, of the activations at the end and of all that follows those; nodes without one get one."""
    reached: set[str] = set()
    kept = []
    for index, node in enumerate(graph.node):
        node.name = node.name or f"node{index}"
        if node.op_type in ACTIVATIONS or reached.intersection(node.input):
            reached.update(node.output)
            kept.append(node.name)
        elif node.op_type in REDUCTIONS:
            kept.append(node.name)
    return kept


def _drop_repeated(graph: Any) -> None:
    """Before ONNX Runtime 1.32 its converter casts a value for each node that stays in float32, all under one name."""
    known: set[str] = set()
    for node in list(graph.node):
        if node.op_type == "Cast" and node.output[0] in known:
            graph.node.remove(node)
        known.update(node.output)


def _drop_detours(graph: Any) -> None:
    """A float32 value that is rounded to half and back at once is taken as it is."""
    casts = {n.output[0]: n for n in graph.node if n.op_type == "Cast" and _to(n) == _onnx().TensorProto.FLOAT16}
    wide = {n.output[0]: casts[n.input[0]].input[0] for n in graph.node if n.op_type == "Cast" and n.input[0] in casts}
    outputs = {o.name for o in graph.output}
    for node in graph.node:
        if node.op_type == "Cast" and node.output[0] in outputs and node.input[0] in casts:
            node.input[0] = casts[node.input[0]].input[0]  # float32 to float32: a name, no rounding
        else:
            node.input[:] = [wide.get(name, name) for name in node.input]
    used = outputs.union(*(node.input for node in graph.node))
    for node in [n for n in graph.node if n.op_type == "Cast" and n.output[0] not in used]:
        graph.node.remove(node)


def _to(cast: Any) -> int:
    return next(int(a.i) for a in cast.attribute if a.name == "to")


def _onnx() -> ModuleType:
    try:
        import onnx  # noqa: PLC0415  (a CPU does without)
    except ImportError as error:
        raise EngineUnavailable("the package onnx is not installed: pip install 'karyon[gpu]' brings it") from error
    return onnx
