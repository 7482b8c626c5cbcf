"""Runs both frameworks and measures, tap by tap, how far they are from each other and from the original."""
