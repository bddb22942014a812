"""The exception family. Every error a user can cause is an `OnnxcanonError` whose text is one clear line."""

from __future__ import annotations


class OnnxcanonError(Exception):
    """Base of every error raised on purpose; the command line prints it as one line and exits with 2."""


class ModelError(OnnxcanonError):
    """A file that is not a model we can keep whole: missing, damaged, unsafe, or with parts we would lose."""


class TransformError(OnnxcanonError):
    """A transform that does not fit the model it is applied to."""


class RuntimeUnavailableError(OnnxcanonError):
    """onnxruntime cannot run the model or does not offer the execution provider that was asked for."""
