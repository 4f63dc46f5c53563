"""Slow and simple versions of the integer coders in NumPy: specification, test oracle, and archival decoder."""
