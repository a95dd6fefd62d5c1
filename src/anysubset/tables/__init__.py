"""Vectors and sequences on disk, tables of them, and batches."""
