"""pytest-benchmark at the seams, without a socket: `python -m pytest bench/micro --benchmark-only`.

Why: a change of the hot path shows here in microseconds before it drowns in the noise of a whole process.
"""
