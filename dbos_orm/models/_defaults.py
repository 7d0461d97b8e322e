"""SQL that the two databases spell differently: server defaults, and the length of a span.

The defaults are there so that an INSERT by hand, or from another language, makes a good row.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from sqlalchemy import Text
from sqlalchemy.exc import CompileError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from dbos_orm.models._types import Instant, Microseconds

__all__ = ["MicrosecondsBetween", "RandomText", "SequenceText", "ServerInstant"]


class SpelledPerDatabase(FunctionElement[Any]):
    """An expression with one spelling per database; ``{0}``, ``{1}`` are its arguments."""

    spellings: ClassVar[Mapping[str, str]]
    inherit_cache = True


@compiles(SpelledPerDatabase)
def _spell(element: SpelledPerDatabase, compiler: SQLCompiler, **options: Any) -> str:
    spelling = element.spellings.get(compiler.dialect.name)
    if spelling is None:
        raise CompileError(
            f"{type(element).__name__} has no spelling for {compiler.dialect.name!r}; "
            f"dbos_orm works on {' and '.join(sorted(element.spellings))}"
        )
    return spelling.format(*(compiler.process(argument, **options) for argument in element.clauses))


class ServerInstant(SpelledPerDatabase):
    """The database's present instant; whole milliseconds on SQLite, whose clock has no more."""

    type = Instant()
    inherit_cache = True
    spellings: ClassVar[Mapping[str, str]] = {
        "postgresql": "clock_timestamp()",
        "sqlite": "strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now')",
    }


class RandomText(SpelledPerDatabase):
    """A random text of 122 bits or more."""

    type = Text()
    inherit_cache = True
    spellings: ClassVar[Mapping[str, str]] = {
        "postgresql": "CAST(gen_random_uuid() AS TEXT)",
        "sqlite": "lower(hex(randomblob(16)))",
    }


_MILLISECONDS_IN_SQLITE = "printf('%012x', CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))"


class SequenceText(SpelledPerDatabase):
    """A UUIDv7 as text, from the database's clock: a later millisecond sorts behind an earlier one."""

    type = Text()
    inherit_cache = True
    spellings: ClassVar[Mapping[str, str]] = {
        # gen_random_uuid() is version 4: from its 16th character on, it is as random as version 7.
        "postgresql": (
            "regexp_replace("
            "lpad(to_hex(CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)), 12, '0'), "
            r"'(.{{8}})(.{{4}})', '\1-\2-7') || substr(CAST(gen_random_uuid() AS TEXT), 16)"
        ),
        # 'now' is one instant throughout a statement, so the two halves belong together.
        "sqlite": (
            f"substr({_MILLISECONDS_IN_SQLITE}, 1, 8) || '-' || substr({_MILLISECONDS_IN_SQLITE}, 9) || "
            "'-7' || substr(lower(hex(randomblob(2))), 2) || "
            "'-8' || substr(lower(hex(randomblob(2))), 2) || '-' || lower(hex(randomblob(6)))"
        ),
    }


class MicrosecondsBetween(SpelledPerDatabase):
    """The exact duration from the first instant to the second."""

    type = Microseconds()
    inherit_cache = True
    spellings: ClassVar[Mapping[str, str]] = {
        "postgresql": "CAST(extract(epoch FROM ({1} - {0})) * 1000000 AS BIGINT)",
        # Whole seconds by the calendar, the rest from the text: julianday() is exact to 40 us only.
        "sqlite": ("((strftime('%s', {1}) - strftime('%s', {0})) * 1000000 + substr({1}, 21, 6) - substr({0}, 21, 6))"),
    }
