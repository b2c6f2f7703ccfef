"""Triton model repositories: from a folder with `config.pbtxt` files to what a deployment of one model is."""
