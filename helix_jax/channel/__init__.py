"""Simulated synthesis, PCR, storage and sequencing: strands in, noisy reads with qualities out; a fit to real reads."""
