"""A fuzzer for the analyzer: random graphs, a random element of the whole group, onnxruntime as the judge.

    python -m tests.fuzz --graphs 2000 --seed 0

A graph is built forward from random inputs (`builder`, `blocks`, `graphs`); every node is run as it is added,
so shapes are what onnxruntime says and values stay of order one. `check` then applies one random element of
the group `symmetry` finds (permutations, scales and signs at once) and compares the outputs; half of the
element's actions, as a control, should change them. `minimize` cuts a graph that fails down to the nodes that
matter.
"""
