"""Which weight or which piece of code explains a bad module."""
