"""The ids that objects can have."""

LARGEST_ID = 65534  # in 16-bit label maps; 254 in 8-bit ones, where 255 means void
