"""Self-attention: full, and block-sparse as one gather of key blocks.

plain.py is what is computed. full.py and block_sparse.py say who meets whom; gathering.py and gradient.py say how that
is made fast, kernels.py how on a TPU, sequence.py how it is done on several devices; probabilities.py is for looking at
it.
"""
