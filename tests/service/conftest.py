from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from demo_service import demo_rig, serving


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    """A service of its own, for tests that stop it, break it or look at its history."""
    with serving(demo_rig(tmp_path)) as client:
        yield client


@pytest.fixture(scope="session")
def shared_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """One service for all tests that leave it as they found it."""
    with serving(demo_rig(tmp_path_factory.mktemp("runs"))) as client:
        yield client
