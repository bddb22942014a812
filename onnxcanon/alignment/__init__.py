"""Alignment: the element of a model's group that brings it nearest to another model of the same structure."""

from onnxcanon.alignment.align import Alignment, align, in_normal_form

__all__ = ["Alignment", "align", "in_normal_form"]
