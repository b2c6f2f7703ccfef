"""`make bench-figures`: the figures that the gateway promises, each as a ratio measured in one interleaved run.

What compares it with other servers is `bench/peers`; here it is held against a bare protocol on the same parser,
against onnxruntime alone, and against itself.
"""
