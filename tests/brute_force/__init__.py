"""A brute-force oracle for the analyzer's permutations: is the group it finds the whole one?

    python -m tests.brute_force --graphs 500

Everything an oracle says comes from running the graph: nothing of `onnxcanon.symmetry` is used to find it.
The searched set is every permutation of the *entries* of the parameters (float initializers of more than
one entry), in three classes, each inside the next:

- ``axes``     a permutation of each axis of each parameter, the same wherever the axis stands;
- ``within``   any permutation of the entries of each parameter, those that depend on a context among them;
- ``all``      any permutation of all entries: parameters may change places, whole or in part.

A permutation is in the group if f(g·θ, x) = f(θ, x) for several random θ and x, in double precision.
`function` runs the graph, `oracle` searches, `groups` multiplies permutations, `compare` holds both answers
together and names the reason where the analyzer's group is smaller, `graphs` makes tiny random graphs.
"""
