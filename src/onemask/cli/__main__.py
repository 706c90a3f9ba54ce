"""`python -m onemask.cli`, for use with `torchrun`."""

import sys

from . import main

sys.exit(main())
