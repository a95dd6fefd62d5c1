"""The tables of the paper in their own layout, and the numbers that it prints."""
