"""Merging: aligned models averaged, and the statistics of the average repaired."""
