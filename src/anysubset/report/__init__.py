"""Scores to tables; needs no model and no GPU."""
