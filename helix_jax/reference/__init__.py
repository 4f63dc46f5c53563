"""Slow, plain twins of the integer coders in NumPy: specification, oracle of the tests, and archival decoder."""
