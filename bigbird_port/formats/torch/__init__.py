"""torch's own weight files, read as weights only."""
