"""Which devices the tests have."""

from __future__ import annotations

import pytest

from onnxcanon.errors import RuntimeUnavailableError
from onnxcanon.runtime import devices


def has_cuda() -> bool:
    """Whether onnxruntime computes on a CUDA device here."""
    try:
        devices.providers_for("cuda")
    except RuntimeUnavailableError:
        return False
    return True


needs_cuda = pytest.mark.skipif(not has_cuda(), reason="onnxruntime has no usable CUDA device")
