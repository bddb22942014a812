"""Landscape: what the loss does around a model and on the way from one model to another."""
