"""Files and folders: read within bounds, written whole, hashed, compared with what is listed."""
