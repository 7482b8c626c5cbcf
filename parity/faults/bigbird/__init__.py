"""What can be broken in BigBird: its faults, and the small models that have what they need."""
