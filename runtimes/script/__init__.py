"""Scoring scripts: the scorer's side of a pool of worker processes, and what runs in them (worker_lib)."""

from pathlib import Path

# The folder that a worker puts first on its path: it holds nothing but the package igw_worker.
WORKER_LIB = Path(__file__).parent / "worker_lib"
