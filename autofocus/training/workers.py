"""Where independent pieces of work run: in processes of this machine, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import joblib

from autofocus.errors import ClusterError

_PATIENCE_S = 10


@dataclass(frozen=True)
class Workers:
    """Who does the work.

    Attributes
    ----------
    jobs : int
        Processes of this machine; -1 is one a core.
    dask : str or None
        Address of a Dask scheduler, such as ``tcp://10.0.0.5:8786``. Its workers take the place of
        processes here; they need this program, and the same files at the same paths.
    """

    jobs: int = 1
    dask: str | None = None

    @property
    def alone(self) -> bool:
        """Whether all is done in this process."""
        return self.dask is None and self.jobs == 1

    @contextmanager
    def parallel(self, *shared: object) -> Iterator[joblib.Parallel]:
        """Give what runs ``joblib.delayed`` calls and yields their results in order.

        Parameters
        ----------
        *shared : object
            Large arguments of every call; a cluster gets them once and not with every call.

        Raises
        ------
        ClusterError
            When Dask is not installed, no scheduler answers, or it has no workers.
        """
        if self.dask is None:
            with joblib.Parallel(n_jobs=self.jobs, return_as="generator") as parallel:
                yield parallel
            return
        with (
            _client(self.dask) as client,
            joblib.parallel_config("dask", client=client, scatter=list(shared)),
        ):
            yield joblib.Parallel(return_as="generator")


@contextmanager
def _client(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError(
            "--dask needs Dask, which is not installed: pip install 'reiqa-autofocus[dask]', here "
            "and on the workers"
        ) from error
    _require_address(address)
    try:
        client = Client(address, timeout=_PATIENCE_S, set_as_default=False)
    except OSError as error:
        raise ClusterError(
            f"no Dask scheduler answers at {address} within {_PATIENCE_S} s ({error}); start one "
            "with `dask scheduler` and give the tcp:// address that it prints"
        ) from error
    with client:
        _require_this_program(client, address)
        yield client


def _require_address(text: str) -> None:
    try:
        parts = urlsplit(text)
        complete = parts.scheme in ("tcp", "tls") and bool(parts.hostname and parts.port)
    except ValueError:
        complete = False
    if not complete:
        raise ClusterError(
            f"{text!r} is no address of a Dask scheduler; give it as `dask scheduler` prints it, "
            "such as tcp://10.0.0.5:8786"
        )


def _require_this_program(client: Any, address: str) -> None:
    try:
        answers = client.run(_present)
    except Exception as error:  # whatever a worker stumbled over when it imported this program
        raise ClusterError(
            f"a worker of {address} cannot import this program ({error!r}); install the same "
            "version of reiqa-autofocus on every worker"
        ) from error
    if not answers:
        raise ClusterError(
            f"the Dask scheduler at {address} has no workers; start some with "
            f"`dask worker {address} --nthreads 1`"
        )


def _present() -> bool:
    """Found by name on a worker, so it answers only where this program is installed."""
    return True
