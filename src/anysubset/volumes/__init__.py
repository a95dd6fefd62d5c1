"""Segmentation data: patient files on disk, prepared volumes, training batches and whole volumes."""
