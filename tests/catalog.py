"""What a database says about its own tables, for comparing two databases to the last default."""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy import Connection, text

_POSTGRESQL: Final = {
    "column": """
        SELECT c.relname || '.' || a.attname,
               concat_ws(' ', a.attnum, format_type(a.atttypid, a.atttypmod), l.collname, a.attnotnull,
                         pg_get_expr(d.adbin, d.adrelid), a.attidentity)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        LEFT JOIN pg_collation l ON l.oid = a.attcollation
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attnum > 0""",
    "constraint": """
        SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = current_schema()::regnamespace AND contype <> 'n'""",
    "index": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema()",
    "storage": """
        SELECT relname, reloptions::text FROM pg_class
        WHERE relnamespace = current_schema()::regnamespace AND reloptions IS NOT NULL""",
    "sequence": "SELECT sequencename, 'exists' FROM pg_sequences WHERE schemaname = current_schema()",
}
_SQLITE: Final = {"object": "SELECT type || ' ' || name, sql FROM sqlite_master WHERE sql IS NOT NULL"}


def catalog(connection: Connection) -> dict[str, str]:
    """Every table, column, default, constraint, index and storage setting of the default schema."""
    queries = _POSTGRESQL if connection.dialect.name == "postgresql" else _SQLITE
    return {
        f"{kind} {name}": re.sub(r"\s+", " ", definition)
        for kind, query in queries.items()
        for name, definition in connection.execute(text(query).execution_options(no_parameters=True))
    }
