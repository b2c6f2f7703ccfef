"""The modules that scoring scripts import by Azure's names, with nothing installed: requests, responses, log formats.

Why: most scripts in the world import them from `azureml.contrib.services`, which current servers dropped, or from the
inference server's own package. `finder.py` puts them under all of those names.
"""
