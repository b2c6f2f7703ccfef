"""Proofs of the control plane on real processes: kills, flips under load, and the figures. `python -m bench.control`.

Nothing of `gateway` is imported: everything goes over TLS, as for any client.
"""
