"""What a GPU's ways of running a model cost: plain runs, fixed buffers, CUDA graphs, and copies to it and back."""
