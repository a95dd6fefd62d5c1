"""The work behind the functions of `api.py`, which imports these files when it needs them."""
