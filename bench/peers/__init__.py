"""This gateway beside the servers that a user would pick instead: same model file, same cores, same minute.

Why: a rate says little about another machine; a ratio taken in one run says much. So every peer is installed in an
environment of its own, set up as its documentation says is best, checked against onnxruntime, and measured in turns
with all the others. A peer that cannot be had is listed with the reason.
"""
