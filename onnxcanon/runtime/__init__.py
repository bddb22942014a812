"""Running models in onnxruntime: sessions on a device, and inputs nobody described."""

from onnxcanon.runtime.sessions import Session, open_session

__all__ = ["Session", "open_session"]
