"""Conditions that users have and that a plain walk does not meet: each is a value, in one list."""
