"""Measurements: `micro` at the seams without a socket, `load` on whole processes.

They need a checkout, not a wheel: the demo's models are part of what is measured.
"""
