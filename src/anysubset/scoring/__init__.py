"""Metrics, the scores of a run, and statistics on them."""
