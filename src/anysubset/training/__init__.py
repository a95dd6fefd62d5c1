"""Training: the loop, optimizers and schedules, checkpoints, the run folder, cost, and conflict between cases."""
