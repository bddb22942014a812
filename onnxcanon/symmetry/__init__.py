"""The analyzer: which permutations, scales and signs of a model's parameters keep its function."""
