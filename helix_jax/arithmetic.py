"""Constants that the range coder, its models and its reference in NumPy share."""

TOTAL_BITS = 15  # the counts of a model sum to 2^15
TOTAL = 1 << TOTAL_BITS
FIRST_BITS = 31  # the first interval is 2^31 wide and stands for [0, 1)
REGISTER_BITS = 32
