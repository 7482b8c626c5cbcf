"""The model of every head in NumPy float64: the truth that the frameworks are measured against."""
