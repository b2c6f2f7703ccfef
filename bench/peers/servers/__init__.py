"""What the peers run: one short program each, executed by the peer's own interpreter, never imported here.

They read everything from the environment (see `given.py`), answer one model, and set what the peer's documentation
recommends for small models on processors. The type checker has no eyes for packages that live elsewhere, so each of
these files asks it to look away.
"""
