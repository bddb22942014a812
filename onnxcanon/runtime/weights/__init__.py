"""Three ways to run one graph again and again with other weights."""
