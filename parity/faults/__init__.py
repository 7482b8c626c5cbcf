"""What can be broken on purpose, and the proof that the gate sees it."""
