"""Programs for other runtimes, made of the twins and held against the reference before they appear."""
