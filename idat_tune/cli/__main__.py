"""`python -m idat_tune.cli` is `idat-tune`."""

from idat_tune.cli import main

main()
