"""The training loop, the folder of a run, its cost, and conflict between the cases."""
