"""Training compared: the same steps by both frameworks and a float64 reference, from one state on the same batches."""
