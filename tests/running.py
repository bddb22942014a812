"""Running models in tests: one run of a model, and verification by a few of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from onnxcanon.arrays import Array, Arrays
from onnxcanon.model import Model
from onnxcanon.runtime import open_session, sessions
from onnxcanon.settings import Settings
from onnxcanon.verifying import Verification, verifier
from onnxcanon.verifying.differences import difference

LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")


def run(model: Model, inputs: Mapping[str, Array], **options: Any) -> Arrays:
    """The outputs of a model, opened for one run."""
    with open_session(model, **options) as session:
        return session.run(inputs)


def outputs_equal(a: Arrays, b: Arrays, tolerance: float) -> bool:
    """Whether two results agree by name, shape and, relative to each array's largest magnitude, value."""
    return a.keys() == b.keys() and all(
        difference(a[name], b[name]) <= tolerance * (float(np.abs(a[name]).max(initial=0.0)) or 1.0)
        for name in a
    )


def verify(
    a: Model,
    b: Model,
    *,
    rtol: float | None = None,
    samples: int | None = None,
    threads: int | None = None,
    **settings: Any,
) -> Verification:
    """Verification by so many sets of inputs and threads within an operator, where these are given."""
    with limited(samples, threads):
        return verifier.verify(a, b, Settings(**settings), rtol)


@contextmanager
def limited(samples: int | None, threads: int | None) -> Iterator[None]:
    """Verification runs `samples` sets of inputs, sessions use `threads`."""
    options_of = sessions.session_options

    def few_threads(optimize: bool) -> Any:
        options = options_of(optimize)
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        return options

    affordable = verifier.affordable_runs if samples is None else lambda seconds: samples
    with (
        mock.patch.object(sessions, "session_options", few_threads),
        mock.patch.object(verifier, "affordable_runs", affordable),
    ):
        yield
