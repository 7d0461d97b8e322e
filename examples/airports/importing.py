"""The import: one workflow, whose every step is a transaction."""

from __future__ import annotations

from contextlib import suppress

from sqlalchemy import delete
from sqlalchemy.orm import Session

from dbos_orm import DBOS, WorkflowHandle
from examples.airports import data_set
from examples.airports.facts import Facts, find_facts
from examples.airports.models import Airport, Base, Country, Subdivision
from examples.airports.terminal import Report

dbos = DBOS(name="airports")


@dbos.transaction
def create_tables(session: Session) -> None:
    Base.metadata.create_all(session.connection())


@dbos.transaction
def import_countries(session: Session, version: str) -> None:
    """Begin from empty tables: an older version of the data set makes room."""
    countries, subdivisions = data_set.countries(version), data_set.subdivisions(version)
    for model in (Airport, Subdivision, Country):
        session.execute(delete(model))
    session.add_all(countries)
    session.add_all(subdivisions)


@dbos.transaction
def import_batch(session: Session, version: str, number: int) -> int:
    """The rows of the batch, and the record that it is done, are one commit."""
    airports = data_set.batch(version, number)
    session.add_all(airports)
    return len(airports)


# The version is given, not computed from the source, so that the async twin is the same workflow.
@dbos.workflow(version="1")
def import_airports(version: str) -> int:
    import_countries(version)
    return sum(import_batch(version, number) for number in range(1, data_set.batch_count(version) + 1))


@dbos.transaction
def facts(session: Session) -> Facts:
    return find_facts(session)


def run(url: str, report: Report) -> None:
    """Import the installed data set into a database, or finish what was begun, or find it done."""
    with dbos.launch(url, migrate=True):
        create_tables()
        workflow_id = f"airports-{data_set.VERSION}"
        handle = import_airports.options(workflow_id=workflow_id).start(data_set.VERSION)
        report.begin(url, handle.status(), created=handle.created, done=len(handle.steps()))
        report.end(wait_for(handle, report))
        report.tell(facts())


def wait_for(handle: WorkflowHandle[int], report: Report) -> int:
    """Show how far the workflow is until it has ended; it does not matter which process runs it."""
    with report.progress() as show:
        while handle.status().is_live:
            show(len(handle.steps()))
            with suppress(TimeoutError):
                return handle.result(timeout=0.1)
    return handle.result()
