"""`python -m idat_tune.cli` is `idat-tune`."""

from idat_tune.cli import main

if __name__ == "__main__":  # but not where a process that this one starts imports it
    main()
