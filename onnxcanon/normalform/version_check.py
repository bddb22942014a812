"""Whether nodes written for an older operator set mean the same in the one that rules read.

Most operators only got more types over time, which a comparison of their schemas shows. Those that changed
have a rule in `rules.upgrades`; for what is left there is no normal form.
"""

from __future__ import annotations

from functools import cache

import onnx
import onnx_ir as ir
from onnx.defs import OpSchema

from onnxcanon.normalform.engine import TARGET

# Operators that changed their meaning but not their schema, and since when they have it.
CHANGED = {"Resize": 11, "GroupNormalization": 21}
# onnxruntime's experimental operators, which it took only from models of operator sets before 10.
_WITHDRAWN = frozenset({"Affine", "Crop", "ImageScaler", "ParametricSoftplus", "Scale", "ScaledTanh"})
_SINGLE = OpSchema.FormalParameterOption.Single


class CannotUpgrade(Exception):
    """A node has no form in the operator set of normal forms."""


def check_complete(graph: ir.Graph, version: int) -> None:
    """Check that every node has what its operator requires.

    Raises:
        CannotUpgrade: If one has not.
    """
    for node in graph.all_nodes():
        if node.domain in ("", "ai.onnx") and not _is_complete(node, node.version or version):
            raise CannotUpgrade(
                f"{node.op_type} ('{node.name}') lacks what it requires, or has what it cannot have"
            )


def check_meaning(graph: ir.Graph, version: int) -> None:
    """Check that every node means the same in the target's operator set.

    Raises:
        CannotUpgrade: If one does not.
    """
    for node in graph.all_nodes():
        written = node.version or version
        if node.domain not in ("", "ai.onnx"):
            continue
        if written < TARGET and not _means_the_same(node.op_type, written, frozenset(node.attributes)):
            raise CannotUpgrade(
                f"{node.op_type} of operator set {written} ('{node.name}') has no newer form here"
            )


def _is_complete(node: ir.Node, version: int) -> bool:
    try:
        schema = onnx.defs.get_schema(node.op_type, version, "")
    except onnx.defs.SchemaError:
        return True
    if not schema.min_input <= len(node.inputs) <= schema.max_input:
        return False
    if any(v is None and p.option == _SINGLE for v, p in zip(node.inputs, schema.inputs, strict=False)):
        return False
    return all(not a.required or name in node.attributes for name, a in schema.attributes.items())


@cache
def _means_the_same(op_type: str, version: int, attributes: frozenset[str]) -> bool:
    try:
        old = onnx.defs.get_schema(op_type, version, "")
    except onnx.defs.SchemaError:
        return op_type not in _WITHDRAWN
    try:
        new = onnx.defs.get_schema(op_type, TARGET, "")
    except onnx.defs.SchemaError:
        return False
    if new.deprecated or version < CHANGED.get(op_type, 0):
        return False
    if old.since_version == new.since_version:
        return True
    return _has_attributes(old, new, attributes) and _has_inputs(old, new)


def _has_attributes(old: OpSchema, new: OpSchema, present: frozenset[str]) -> bool:
    """Whether attributes that are present remain, others have their old defaults, and none is required."""
    for name, attribute in old.attributes.items():
        later = new.attributes.get(name)
        if name in present:
            if later is None or later.type != attribute.type:
                return False
        elif attribute.default_value != (later.default_value if later else attribute.default_value):
            return False
    return not any(a.required for name, a in new.attributes.items() if name not in old.attributes)


def _has_inputs(old: OpSchema, new: OpSchema) -> bool:
    """Whether inputs were added at the end only, and those are optional."""
    if len(old.inputs) > len(new.inputs):
        return False
    pairs = zip(old.inputs, new.inputs, strict=False)
    if any(a.option != b.option and b.option == _SINGLE for a, b in pairs):
        return False
    return not any(b.option == _SINGLE for b in new.inputs[len(old.inputs) :])
