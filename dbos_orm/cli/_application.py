"""The command line as a whole: its commands, and what an error becomes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import IntEnum

import typer
from sqlalchemy.exc import DBAPIError

from dbos_orm.cli import _schema_commands, _worker_command
from dbos_orm.cli._output import complain
from dbos_orm.errors import ConfigurationError, DatabaseUnavailableError, DBOSError

__all__ = ["ExitCode", "application", "main"]


class ExitCode(IntEnum):
    """What the command returns to the shell."""

    DONE = 0
    REFUSED = 1
    """What was asked for cannot be done, or the answer of ``check`` is no."""
    USAGE = 2
    UNAVAILABLE = 3
    """The database does not answer: trying again may help."""


application = typer.Typer(
    name="dbos-orm",
    help="Durable workflows in your database: its schema, and processes that execute them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_schema_commands.register(application)
_worker_command.register(application)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 refused, 2 wrong usage, 3 the database does not answer."""
    try:
        application(args=arguments, prog_name="dbos-orm")
    except DatabaseUnavailableError as error:
        _exit(ExitCode.UNAVAILABLE, str(error))
    except ConfigurationError as error:
        _exit(ExitCode.USAGE, str(error))
    except DBOSError as error:
        _exit(ExitCode.REFUSED, str(error))
    except DBAPIError as error:
        _exit(ExitCode.REFUSED, f"the database refused: {str(error.orig).strip()}")


def _exit(code: ExitCode, message: str) -> None:
    complain(message)
    sys.exit(code)
