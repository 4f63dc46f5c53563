"""Tokens <-> the bytes of a payload: modes, qualities, search, segments, contexts, and the concealment of losses."""
