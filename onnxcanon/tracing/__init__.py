"""Abstract interpretation of a graph: the units that label the axes of every value, and their constraints."""
