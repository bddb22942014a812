"""Quantized models without their rounding: smooth functions that equal models share."""
