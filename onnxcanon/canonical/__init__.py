"""The canonical form of a model, its fingerprint and its sketch: one for all equivalent models."""

from onnxcanon.canonical.canonical_form import CanonicalForm, canonicalize

__all__ = ["CanonicalForm", "canonicalize"]
