"""From constraints on units to groups: permutations as a tree of wreath products, scales and signs."""
