"""Where the table of tolerances comes from."""
