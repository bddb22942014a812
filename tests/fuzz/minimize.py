"""Cut a failing graph down to the nodes that matter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx
from onnx import helper

from tests.fuzz.builder import Array, Feeds, captures, model_of, run
from tests.fuzz.check import check
from tests.fuzz.graphs import Case, tensors


def minimize(case: Case, fails: Callable[[Case], bool]) -> Case:
    """Cut nodes from a failing case as long as it fails: fewer outputs, inputs in the middle, shortcuts."""
    case = pruned(case, [o.name for o in case.proto.graph.output])
    changed = True
    while changed:
        changed = False
        for smaller in _smaller(case):
            if len(smaller.proto.graph.node) < len(case.proto.graph.node) and fails(smaller):
                case, changed = smaller, True
                break
    return case


def _values(case: Case) -> Feeds:
    """Every value in the graph for the first feed."""
    every = onnx.ModelProto()
    every.CopyFrom(case.proto)
    del every.graph.output[:]
    names = [n for node in every.graph.node for n in node.output if n]
    every.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    return dict(zip(names, run(every, case.feeds[0]), strict=True))


def _smaller(case: Case) -> Iterable[Case]:
    outputs = [o.name for o in case.proto.graph.output]
    if len(outputs) > 1:
        for o in outputs:
            yield pruned(case, [p for p in outputs if p != o])
    try:
        values = _values(case)
    except Exception:
        return
    static = _static(case)
    floats = {n for n, a in values.items() if a.dtype.kind == "f"}
    for node in reversed(static.proto.graph.node):  # start in the middle
        for n in node.output:
            if n in floats:
                yield _from(static, n, values[n])
    for node in static.proto.graph.node:  # leave a node out
        for n in node.output:
            for source in node.input:
                known = {**values, **case.feeds[0], **tensors(case)}
                if n in floats and source in known and known[source].shape == values[n].shape:
                    yield _renamed(static, n, source)


def _static(case: Case) -> Case:
    proto = onnx.ModelProto()
    proto.CopyFrom(case.proto)
    for value in proto.graph.input:
        shape = case.feeds[0][value.name].shape
        kind = value.type.tensor_type.elem_type
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shape))
    return Case(proto, case.feeds[:1])


def _from(case: Case, name: str, value: Array) -> Case:
    """The same graph with one value given as an input."""
    proto = onnx.ModelProto()
    proto.CopyFrom(case.proto)
    for node in proto.graph.node:
        for k, n in enumerate(node.output):
            if n == name:
                node.output[k] = f"{n}_gone"
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    proto.graph.input.append(helper.make_tensor_value_info(name, kind, value.shape))
    fresh = Case(proto, [{**f, name: value} for f in case.feeds])
    return pruned(fresh, [o.name for o in proto.graph.output])


def _renamed(case: Case, name: str, source: str) -> Case:
    """The same graph reading another value of the same shape."""
    proto = onnx.ModelProto()
    proto.CopyFrom(case.proto)
    for node in proto.graph.node:
        for k, n in enumerate(node.input):
            if n == name:
                node.input[k] = source
    return pruned(Case(proto, case.feeds), [o.name for o in proto.graph.output])


def pruned(case: Case, outputs: Sequence[str]) -> Case:
    """Only what the outputs need."""
    needed, nodes = set(outputs), []
    for node in reversed(case.proto.graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(node.input)
            needed |= {n for a in node.attribute if a.HasField("g") for n in captures(a.g)}
    graph = case.proto.graph
    small = helper.make_graph(
        nodes[::-1], graph.name, [i for i in graph.input if i.name in needed],
        [o for o in graph.output if o.name in outputs], [t for t in graph.initializer if t.name in needed],
    )  # fmt: skip
    feeds = [{n: a for n, a in f.items() if n in needed} for f in case.feeds]
    functions = list(case.proto.functions)
    return Case(model_of(small, case.proto.opset_import[0].version, functions), feeds)


def describe(case: Case) -> str:
    """The graph in a few lines, constants of indices written out."""
    known = tensors(case)
    lines = [f"opset {case.proto.opset_import[0].version}"]
    for value in case.proto.graph.input:
        dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        lines.append(f"  input {value.name} {dims}")
    for name, a in known.items():
        text = a.tolist() if a.dtype == np.int64 or a.size == 1 or (a == a.flat[0]).all() else a.dtype
        lines.append(f"  {name} {list(a.shape)} {text}")
    try:
        values = _values(case)
    except Exception:
        values = {}
    for node in case.proto.graph.node:
        attributes = ", ".join(
            f"{a.name}={'…' if a.name == 'value' else helper.get_attribute_value(a)}".replace("\n", " ")
            for a in node.attribute
        )
        shapes = [list(values[o].shape) if o in values else "?" for o in node.output if o]
        lines.append(
            f"  {', '.join(node.output)} = {node.op_type}({', '.join(node.input)}) {attributes} {shapes}"
        )
    lines.append(f"  outputs {[o.name for o in case.proto.graph.output]}")
    return "\n".join(lines)


def same_failure(problem: str, seed: int) -> Callable[[Case], bool]:
    """Whether another case fails in the same way, for any of a few random elements."""
    kind = problem.split(":")[0]

    def fails(case: Case) -> bool:
        return any(check(case, seed + k).problem.startswith(kind) for k in range(3))

    return fails
