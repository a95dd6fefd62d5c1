"""`python -m anysubset`."""

import sys

from anysubset.cli import main

if __name__ == "__main__":
    sys.exit(main())
