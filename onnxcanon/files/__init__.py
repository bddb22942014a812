"""ONNX files at the level of protobuf's bytes: read without loading, written without losing anything."""
