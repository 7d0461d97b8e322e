"""The command ``dbos-orm``."""

from dbos_orm.cli._application import application, main

__all__ = ["application", "main"]
