"""What the symmetry of a model means to a reader: dimensions, counts, and why an axis does not move."""
