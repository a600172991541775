"""`python -m convolith` and the `convolith` command."""

from convolith.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
