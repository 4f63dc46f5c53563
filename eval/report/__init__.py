"""What the project is worth beside ordinary codecs and other ways to write DNA: figures, plots, one HTML page."""
