"""The data sets by name, and what volumes and tables have in common."""
