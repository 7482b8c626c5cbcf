"""BigBird-Pegasus in float64, written from the facts."""
