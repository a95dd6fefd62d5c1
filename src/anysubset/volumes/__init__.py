"""Data sets of volumes: patient files, preparation, training batches, and whole volumes for evaluation."""
