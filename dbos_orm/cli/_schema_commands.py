"""``dbos-orm migrate``, ``current``, ``check`` and ``downgrade``."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy import URL

from dbos_orm import schema
from dbos_orm._store.revision import SchemaRevision, schema_revision
from dbos_orm.cli._database import UrlOption, chosen_url, exists, open_database, shown
from dbos_orm.cli._output import say, say_json, say_verbatim
from dbos_orm.models import TransactionOutput

__all__ = ["register"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def register(application: typer.Typer) -> None:
    """Add the commands that deal with the schema."""
    for command in (migrate, current, check, downgrade):
        application.command()(command)


def migrate(
    url: UrlOption = None,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL for an empty database; connect to none.")] = False,
    revision: Annotated[str, typer.Option(help="Stop at this revision; with --sql also FROM:TO.")] = "head",
    transaction_output: Annotated[
        str | None,
        typer.Option(
            help="Instead, create the one table that transactions need in this other database.", metavar="URL"
        ),
    ] = None,
) -> None:
    """Create the tables, or bring them to the revision that this library works with."""
    if transaction_output is not None:
        _create_transaction_output(chosen_url(transaction_output), sql=sql)
        return
    database = chosen_url(url)
    if sql:
        say_verbatim(schema.sql(database, revision))
        return
    with open_database(database) as connection:
        before = schema.upgrade_connection(connection, revision)
        after = schema_revision(connection).found
    if before == after:
        say(f"{shown(database)} is at revision {after} already")
    else:
        say(f"{shown(database)} is now at revision {after}; it {_had(before)}", style="green")


def current(url: UrlOption = None, json: JsonOption = False) -> None:
    """Print the revision that the database has."""
    database = chosen_url(url)
    revision = _read(database)
    if json:
        say_json(_facts(database, revision))
    else:
        say(revision.found or "no tables")


def check(url: UrlOption = None, json: JsonOption = False) -> None:
    """Exit with 0 when this library can work with the database, with 1 when something is to be run first."""
    database = chosen_url(url)
    revision = _read(database)
    if json:
        say_json(_facts(database, revision))
    elif revision.is_current:
        say(f"{shown(database)} is at revision {revision.found}, as expected", style="green")
    else:
        say(
            f"{shown(database)} {_has(revision.found)}, expected revision {revision.expected}; run: {revision.command}",
            style="red",
        )
    if not revision.is_current:
        raise typer.Exit(1)


def downgrade(
    revision: Annotated[str, typer.Argument(help="The revision to go back to; 'base' removes every table.")],
    url: UrlOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Go back to an older revision. What only the newer one can hold is lost, with 'base' everything."""
    database = chosen_url(url)
    found = _read(database).found
    if found is None:
        say(f"{shown(database)} has no tables of dbos_orm: nothing to do")
        return
    if not yes:
        typer.confirm(f"Take {shown(database)} from revision {found} back to {revision}, and lose data?", abort=True)
    with open_database(database) as connection:
        schema.downgrade_connection(connection, revision)
        after = schema_revision(connection).found
    say(f"{shown(database)} now {_has(after)}", style="green")


def _create_transaction_output(database: URL, *, sql: bool) -> None:
    name = TransactionOutput.__tablename__
    if sql:
        say_verbatim(schema.transaction_output_sql(database))
        return
    with open_database(database) as connection:
        is_new = schema.create_transaction_output(connection)
    if is_new:
        say(f"{shown(database)} now has the table {name}", style="green")
    else:
        say(f"{shown(database)} has the table {name} already")


def _read(url: URL) -> SchemaRevision:
    if not exists(url):
        return SchemaRevision(None)
    with open_database(url) as connection:
        return schema_revision(connection)


def _facts(url: URL, revision: SchemaRevision) -> dict[str, str | bool | None]:
    return {
        "url": shown(url),
        "found": revision.found,
        "expected": revision.expected,
        "is_current": revision.is_current,
        "command": None if revision.is_current else revision.command,
    }


def _has(revision: str | None) -> str:
    return "has no tables of dbos_orm" if revision is None else f"is at revision {revision}"


def _had(revision: str | None) -> str:
    return "had no tables of dbos_orm" if revision is None else f"was at revision {revision}"
