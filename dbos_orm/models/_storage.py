"""How PostgreSQL stores the tables that are written most."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table, event
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler

from dbos_orm.models._base import Base

__all__ = ["set_storage"]


class SetStorage(ExecutableDDLElement):
    """ALTER TABLE ... SET (...): ``Table`` itself takes these parameters only from SQLAlchemy 2.1 on."""

    def __init__(self, table: Table, parameters: str) -> None:
        self.table, self.parameters = table, parameters


@compiles(SetStorage, "postgresql")
def _compile(element: SetStorage, compiler: DDLCompiler, **_: Any) -> str:
    return f"ALTER TABLE {compiler.preparer.format_table(element.table)} SET ({element.parameters})"


def set_storage(model: type[Base], **parameters: float) -> None:
    """Have the model's table created with these storage parameters, where the database is PostgreSQL."""
    settings = ", ".join(f"{name} = {value}" for name, value in parameters.items())
    statement = SetStorage(model.__table__, settings)
    event.listen(model.__table__, "after_create", statement.execute_if(dialect="postgresql"))
