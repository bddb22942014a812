"""Graphs of ONNX nodes as every floor sees them: the order of nodes, element types, what a node says."""
