"""Self-attention: full, and block-sparse as one gather of key blocks.

plain.py is what is computed. full.py and block_sparse.py say who meets whom; gathering.py, rows.py, gradient.py and
onednn.py say how that is made fast; probabilities.py is for looking at it.
"""
