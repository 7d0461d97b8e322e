"""The pipeline: one workflow that fans out over a queue, one workflow for each document, and what they come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dbos_orm import DBOS, WorkflowHandle
from examples.document_pipeline.documents import Contents, find_documents, read_document
from examples.document_pipeline.models import Base, Document, Section, Term
from examples.document_pipeline.progress import Progress, look

dbos = DBOS(name="documents")
documents = dbos.queue("documents", concurrency=8, worker_concurrency=4)


@dataclass(frozen=True)
class Summary:
    """What a folder holds."""

    documents: int
    lines: int
    sections: int
    largest: str
    most_frequent: list[str]


@dbos.transaction
def create_tables(session: Session) -> None:
    Base.metadata.create_all(session.connection())


@dbos.transaction
def ingest(session: Session, folder: str) -> list[str]:
    """A row for each document and the start of its workflow: one commit, so that neither is there without the other."""
    rows = [Document(folder=folder, path=path) for path in find_documents(Path(folder))]
    session.add_all(rows)
    session.flush()
    handles = dbos.start_many([index_document.call(row.id, folder, row.path) for row in rows])
    for row, handle in zip(rows, handles, strict=True):
        row.indexing_id = handle.workflow_id
    return [handle.workflow_id for handle in handles]


@dbos.step
def read(folder: str, path: str) -> Contents:
    return read_document(Path(folder) / path)


@dbos.transaction
def store(session: Session, document_id: int, contents: Contents) -> None:
    document = session.get_one(Document, document_id)
    document.lines = contents.lines
    document.sections = [Section(line=part.line, title=part.title, words=part.words) for part in contents.parts]
    document.terms = [Term(word=word, count=count) for word, count in contents.terms.items()]


@dbos.workflow(queue=documents)
def index_document(document_id: int, folder: str, path: str) -> int:
    contents = read(folder, path)
    store(document_id, contents)
    return contents.lines


@dbos.transaction
def summarize(session: Session, folder: str, lines: int) -> Summary:
    mine = Document.folder == folder
    largest = session.scalars(select(Document).where(mine).order_by(Document.lines.desc(), Document.path)).first()
    total = func.sum(Term.count)
    words = select(Term.word).join(Term.document).where(mine).group_by(Term.word).order_by(total.desc(), Term.word)
    return Summary(
        documents=session.scalar(select(func.count()).select_from(Document).where(mine)) or 0,
        lines=lines,
        sections=session.scalar(select(func.count()).select_from(Section).join(Section.document).where(mine)) or 0,
        largest="" if largest is None else largest.path,
        most_frequent=list(session.scalars(words.limit(5))),
    )


@dbos.workflow
def index_folder(folder: str) -> Summary:
    started = ingest(folder)
    lines = dbos.gather(*(index_document.handle(workflow_id) for workflow_id in started))
    return summarize(folder, sum(lines))


def run(url: str, folder: Path, report: Callable[[str], None]) -> None:
    """Index a folder, or finish what was begun, or find it done. Any number of processes may do that at once."""
    with dbos.launch(url, migrate=True):
        create_tables()
        handle = index_folder.options(workflow_id=f"index-{folder}").start(str(folder))
        if not handle.created:
            is_done = handle.status().is_terminal
            report("nothing to do: this folder is indexed" if is_done else "this folder was begun before: going on")
        summary = wait_for(handle, str(folder), report)
        report(f"{summary.documents:,} documents, {summary.lines:,} lines, {summary.sections:,} sections")
        report(f"the largest: {summary.largest}; the most frequent words: {', '.join(summary.most_frequent)}")


def wait_for(handle: WorkflowHandle[Summary], folder: str, report: Callable[[str], None]) -> Summary:
    """Tell how far it is until it has ended; it does not matter which process works on it."""
    said = ""
    while True:
        try:
            return handle.result(timeout=1)
        except TimeoutError:
            line = str(progress(folder))
            if line != said:
                report(line)
            said = line


@dbos.transaction
def progress(session: Session, folder: str) -> Progress:
    return look(session, folder)
