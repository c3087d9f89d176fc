"""``python -m catbird_db`` is the command ``catbird-db``."""

from .cli import main

if __name__ == "__main__":
    main()
