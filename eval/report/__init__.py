"""The project compared with ordinary codecs and other ways to write DNA: figures, plots, and one HTML page."""
