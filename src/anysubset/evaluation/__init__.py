"""Scores in every scenario and under random missingness, and predictions for new samples."""
