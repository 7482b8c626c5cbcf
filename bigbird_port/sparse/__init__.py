"""Which blocks attend to which, and how much of that runs at once."""
