"""The tables and figures of docs/timing.md."""
