"""What the gateway adds to a bare `session.run`: whole processes, measured beside onnxruntime in the same run.

Why: absolute figures do not travel between machines, ratios do; so every figure here has its bare counterpart,
taken in the same minute on the same cores.
How: rounds visit every case in turn (bare, one connection, bare, many connections), and the table shows medians over
the rounds with their spread. The generator is a process of its own; every answer's status is counted.
"""
