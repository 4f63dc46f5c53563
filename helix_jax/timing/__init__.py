"""The timing channel of terminator-free enzymatic synthesis.

"Coding for Optimized Writing Rate in DNA Storage", ISIT 2020. Bits go into which base comes next and for how long it is
written. See ``docs/timing.md``; nothing here needs the video side.
"""
