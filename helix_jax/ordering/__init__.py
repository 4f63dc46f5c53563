"""Orders of strands: what vendors take, and the tables that they are sent."""
