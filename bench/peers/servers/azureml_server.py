# mypy: ignore-errors
"""Starts Azure Machine Learning's inference server on loopback; its command line knows no address."""

from azureml_inference_server_http import amlserver

if __name__ == "__main__":
    amlserver.DEFAULT_HOST = "127.0.0.1"
    amlserver.run()
