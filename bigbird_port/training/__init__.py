"""Training that goes on: what the original's optimizers keep, how it is found, and how it is written."""
