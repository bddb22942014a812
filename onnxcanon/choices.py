"""What each option of a verb may be: read by the verbs, the command line and the documentation.

Imports nothing that takes time, so that `--help` may read it.
"""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal["weights", "activations", "cosine", "functional", "annealing"]

METHODS: tuple[Method, ...] = get_args(Method)
"""How units are matched."""
