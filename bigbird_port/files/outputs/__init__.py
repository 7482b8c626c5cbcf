"""Output folders: they appear whole or not at all, and replace nothing that is not an output."""
