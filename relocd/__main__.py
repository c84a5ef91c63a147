"""``python -m relocd`` is the daemon."""

from relocd.daemon.main import main

main()
