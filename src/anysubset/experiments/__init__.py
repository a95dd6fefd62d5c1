"""Settings, experiment files and sweeps."""
