"""``python -m relocd.carrier``."""

import os
import sys

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy is imported: no algebra here, no threads for it

from relocd.carrier.main import main

main(sys.argv[1:])
