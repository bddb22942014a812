"""The same model in other clothes: other names, another order, other fields, and nodes that lead nowhere."""

from __future__ import annotations

import copy

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def disguised(proto: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """A copy that computes the same from inputs in the same order: renamed, shuffled, stored otherwise."""
    out = copy.deepcopy(proto)
    _strip(out)
    _restore(out.graph, rng)
    _shuffle(out.graph, rng)
    _rename(out.graph, {"": ""}, rng)
    _add_dead_node(out)
    return out


def _strip(proto: onnx.ModelProto) -> None:
    proto.producer_name, proto.producer_version, proto.doc_string = "someone else", "9", "another text"
    del proto.metadata_props[:]
    proto.metadata_props.add(key="note", value="nothing")
    proto.graph.name = "another name"
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]


def _restore(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
    """Numbers of float and int64 tensors in typed instead of raw fields, or the other way round."""
    for tensor in graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL or rng.random() < 0.5:
            continue
        array = numpy_helper.to_array(tensor)
        if tensor.HasField("raw_data") and tensor.data_type == TensorProto.FLOAT:
            tensor.ClearField("raw_data")
            tensor.float_data.extend(array.ravel().tolist())
        elif tensor.HasField("raw_data") and tensor.data_type == TensorProto.INT64:
            tensor.ClearField("raw_data")
            tensor.int64_data.extend(array.ravel().tolist())
        elif tensor.float_data or tensor.int64_data:
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _shuffle(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
    """Initializers in any order, nodes in any that runs."""
    tensors = list(graph.initializer)
    del graph.initializer[:]
    graph.initializer.extend(tensors[k] for k in rng.permutation(len(tensors)))
    nodes, made = list(graph.node), {name for node in graph.node for name in node.output if name}
    del graph.node[:]
    done: set[str] = set()
    while nodes:
        able = [k for k, node in enumerate(nodes) if not (_read(node) & made) - done]
        chosen = nodes.pop(able[int(rng.integers(len(able)))])
        done.update(chosen.output)
        graph.node.append(chosen)
    for node in graph.node:
        for body in _bodies(node):
            _shuffle(body, rng)


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [g for a in node.attribute for g in ([a.g] if a.type == onnx.AttributeProto.GRAPH else a.graphs)]


def _read(node: onnx.NodeProto) -> set[str]:
    """Names of its graph that a node reads, in its bodies too."""
    names = set(node.input)
    for body in _bodies(node):
        inside = {v.name for v in body.output}.union(*map(_read, body.node))
        names |= inside - _defined(body)
    return names


def _defined(graph: onnx.GraphProto) -> set[str]:
    own = [*(v.name for v in graph.input), *(t.name for t in graph.initializer)]
    return {*own, *(name for node in graph.node for name in node.output)}


def _rename(graph: onnx.GraphProto, outer: dict[str, str], rng: np.random.Generator) -> None:
    """New names for all values; `outer` holds those of the graphs around."""
    names = dict(outer)
    own = sorted(_defined(graph) - {""})
    for number, name in zip(rng.permutation(len(own)).tolist(), own, strict=True):
        names[name] = f"v{len(outer)}_{number}"
    for node in graph.node:
        node.name = ""
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names[n] for n in node.output]
        for body in _bodies(node):
            _rename(body, names, rng)
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)


def _add_dead_node(proto: onnx.ModelProto) -> None:
    """A node that reads a weight and leads to no output."""
    floats = [t for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) > 1]
    if floats:
        proto.graph.node.append(helper.make_node("Softmax", [floats[0].name], ["nowhere"]))
