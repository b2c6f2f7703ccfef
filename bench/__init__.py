"""Measurements: `client` is `gateway bench URL`; `micro` is at the seams without a socket, `load` of whole processes.

`client` is part of the product. The others need a checkout, not a wheel: the demo's models are part of what is
measured.
"""
