"""`python -m vlp_lib.cli`, as accelerate and torchrun start it."""

import sys

from vlp_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
