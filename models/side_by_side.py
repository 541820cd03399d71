"""Two calculations of one frame at the same time.

A layer of a network that is split among threads ends when its slowest thread does, and the others
spin until then. Two networks on half of the threads each wait for one another once a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

import torch
from threadpoolctl import ThreadpoolController

First = TypeVar("First")
Second = TypeVar("Second")


def side_by_side(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """Results of both, the second calculated on a thread of its own.

    One after the other where torch was given one thread: whoever did that gave one processor.
    """
    if torch.get_num_threads() == 1:
        return first(), second()
    with ThreadPoolExecutor(1) as other:
        later = other.submit(second)
        return first(), later.result()


class HalfTheThreads:
    """Like `side_by_side`, each calculation on half of the threads that torch has.

    What is outside the two calculations, other threads included, keeps its threads.
    """

    def __call__(
        self, first: Callable[[], First], second: Callable[[], Second]
    ) -> tuple[First, Second]:
        """Results of both."""
        half = max(1, torch.get_num_threads() // 2)
        openmp = self._openmp

        def limited(run: Callable[[], Any]) -> Any:
            # A new thread takes torch's number at torch's first word there; limited before that,
            # it would forget.
            torch.get_num_threads()
            with openmp.limit(limits=half):
                return run()

        return side_by_side(lambda: limited(first), lambda: limited(second))

    @cached_property
    def _openmp(self) -> ThreadpoolController:
        # Looking through the loaded libraries takes milliseconds. Not torch.set_num_threads: that
        # is for threads yet to come, those of others too; OpenMP's own number is each thread's.
        return ThreadpoolController().select(user_api="openmp")

    def __reduce__(self) -> tuple[type[HalfTheThreads], tuple[()]]:
        """Nothing to remember: another process looks through its own libraries."""
        return HalfTheThreads, ()
