"""Readers and writers of checkpoint files; each format has its own module."""
