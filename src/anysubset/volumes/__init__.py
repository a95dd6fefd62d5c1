"""Patients on disk, prepared volumes, and batches of them."""
