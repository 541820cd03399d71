"""The one thread that talks to the hardware."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")


class HardwareThread:
    """Runs jobs one after the other, in the order they were submitted, on a single thread."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hardware")

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Queue a job and return at once.

        Raises
        ------
        RuntimeError
            After ``close()``.
        """
        return self._executor.submit(job)

    def close(self) -> None:
        """Finish the running job and forget those that wait; calling it again does nothing."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> HardwareThread:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
