"""A pipeline over a queue, on real files: killed in the middle and run again, it ends with exactly the right rows."""

from __future__ import annotations

import random

import pytest
from sqlalchemy import Engine, func, inspect, select
from sqlalchemy.orm import Session

from dbos_orm import WorkflowStatus
from examples.document_pipeline.documents import STANDARD_LIBRARY, Contents, find_documents, read_document
from examples.document_pipeline.models import Document, Section, Term
from tests.databases import TestDatabase
from tests.processes import ChildProcess, Processes, eventually

FOLDER = STANDARD_LIBRARY / "encodings"
PATIENCE = 90.0


@pytest.fixture(scope="module")
def expected() -> dict[str, Contents]:
    """What is in the files, found without a database."""
    return {path: read_document(FOLDER / path) for path in find_documents(FOLDER)}


def start(processes: Processes, database: TestDatabase) -> ChildProcess:
    url = database.url.render_as_string(hide_password=False)
    environment = {"DBOS_DATABASE_URL": url}
    return processes.start_module("examples.document_pipeline", str(FOLDER), environment=environment)


def indexed(engine: Engine) -> int:
    """How many documents are, seen by a reader who holds up nobody."""
    with engine.connect().execution_options(sqlite_deferred=True) as connection:
        if "document" not in inspect(connection).get_table_names():
            return 0
        return connection.scalar(select(func.count()).where(Document.lines.is_not(None))) or 0


def wait_until_indexed(engine: Engine, documents: int) -> None:
    eventually(lambda: indexed(engine) >= documents, timeout=PATIENCE, what=f"{documents} documents")


def assert_exactly_what_is_in_the_files(engine: Engine, expected: dict[str, Contents]) -> None:
    with Session(engine) as session:
        documents = session.scalars(select(Document)).all()
        assert sorted(one.path for one in documents) == sorted(expected)
        for one in documents:
            contents = expected[one.path]
            assert one.lines == contents.lines
            assert one.indexing is not None
            assert one.indexing.status == "SUCCESS"
        parts = {
            (path, part.line): (part.title, part.words)
            for path, part in session.execute(select(Document.path, Section).join(Section.document))
        }
        assert parts == {
            (path, part.line): (part.title, part.words) for path, each in expected.items() for part in each.parts
        }
        terms = {
            (path, term.word): term.count
            for path, term in session.execute(select(Document.path, Term).join(Term.document))
        }
        assert terms == {(path, word): count for path, each in expected.items() for word, count in each.terms.items()}
        children = select(func.count()).where(WorkflowStatus.queue == "documents")
        assert session.scalar(children) == len(expected), "nothing was started twice"


def test_a_pipeline_that_is_killed_in_the_middle_goes_on_when_it_is_run_again(
    empty_database: TestDatabase, processes: Processes, expected: dict[str, Contents]
) -> None:
    engine = empty_database.make_engine()
    chance = random.Random(empty_database.backend)
    for documents in sorted(chance.sample(range(1, len(expected) - 30), 2)):
        child = start(processes, empty_database)
        wait_until_indexed(engine, documents)
        child.kill()
        assert indexed(engine) < len(expected)

    child = start(processes, empty_database)
    assert child.wait_for_line("going on") == "this folder was begun before: going on"
    lines = child.succeed(timeout=PATIENCE)

    assert_exactly_what_is_in_the_files(engine, expected)
    sections = sum(len(each.parts) for each in expected.values())
    total = sum(each.lines for each in expected.values())
    assert lines[-2] == f"{len(expected):,} documents, {total:,} lines, {sections:,} sections"
    again = start(processes, empty_database).succeed(timeout=PATIENCE)
    assert again == ["nothing to do: this folder is indexed", *lines[-2:]]


def test_two_processes_share_the_queue_and_tell_the_same(
    empty_database: TestDatabase, processes: Processes, expected: dict[str, Contents]
) -> None:
    first = start(processes, empty_database)
    wait_until_indexed(empty_database.make_engine(), 1)
    second = start(processes, empty_database)
    assert first.succeed(timeout=PATIENCE)[-2:] == second.succeed(timeout=PATIENCE)[-2:]
    assert_exactly_what_is_in_the_files(empty_database.make_engine(), expected)
