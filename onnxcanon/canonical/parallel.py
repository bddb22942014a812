"""Work on several tensors at once: numpy and BLAKE3 let other threads run while they compute."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

MAX_THREADS = 4
"""Threads at most: each holds the pages of one tensor, and memory feeds no more of them."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def for_each(items: Iterable[Item], work: Callable[[Item], Result]) -> list[Result]:
    """What some work makes of each item, in their order; the items are worked on in several threads."""
    items = list(items)
    if len(items) < 2:
        return [work(item) for item in items]
    able = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(min(able, MAX_THREADS)) as pool:
        return list(pool.map(work, items))
