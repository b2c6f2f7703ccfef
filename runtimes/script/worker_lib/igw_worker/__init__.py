"""What hosts a scoring script: one process, one script, one request or batch at a time.

Why: the script shall run unchanged, as under Azure's inference server, with no package of ours in its environment.
Errors: none leave the process; a request that fails is answered, a start that fails is told to the crew.
"""
