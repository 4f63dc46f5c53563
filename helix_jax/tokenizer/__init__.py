"""Video tokenizer."""
