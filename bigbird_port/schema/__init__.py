"""Weights: what each is called and how it is laid out, and how the names of a source are read; no family in it."""
