"""What an error is, what it may be, and what it was before."""
