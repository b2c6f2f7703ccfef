"""What serves an MLflow model without a scoring script of the user's: its python_function flavour.

Why here: it runs in the model's own interpreter, beside the host of scripts, and is to that host a script like any
other. `mlflow` and what the model needs come from the environment; nothing here imports them before `init()`.
"""
