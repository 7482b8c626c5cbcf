"""The product in other libraries' clothes; each room is imported only by those who use that library."""
