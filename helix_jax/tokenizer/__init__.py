"""Video tokenizer: frames <-> tokens."""
