"""The normal form: what different exporters and operator sets make of one model comes out as one graph."""

from onnxcanon.normalform.normal_form import NormalForm, normal_form
from onnxcanon.normalform.structure import structure

__all__ = ["NormalForm", "normal_form", "structure"]
