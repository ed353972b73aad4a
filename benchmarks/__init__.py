"""How far each distance is from the arithmetic limit, and from other libraries: `make bench` measures it."""
