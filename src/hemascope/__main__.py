"""``python -m hemascope`` is the command line."""

from hemascope.cli import main

if __name__ == "__main__":
    main()
