"""``python -m dbos_orm`` is the command ``dbos-orm``."""

from dbos_orm.cli import main

if __name__ == "__main__":
    main()
