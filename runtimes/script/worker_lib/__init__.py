"""The folder that a script worker puts on its import path: all of ours that runs in the user's interpreter.

Why: that interpreter is not the gateway's. It may be older and has none of its packages, so what lies below imports
the standard library and itself only, and keeps to the syntax of Python 3.8.
"""
