"""What holds for every test: a cache of its own, threads that do not spin, hypothesis without a clock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Set before torch loads, here and in the processes tests start: test machines are shared (see hemascope/cli).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several: a thread each, for together they have all the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A slow machine must not fail a property, and a failure must come again when the test is run again.
settings.register_profile("hemascope", deadline=None, derandomize=True)
settings.load_profile("hemascope")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests leave the user's cache alone, whatever they load."""
    cache = tmp_path_factory.mktemp("cache")
    os.environ["HEMASCOPE_CACHE"] = str(cache)
    return cache
