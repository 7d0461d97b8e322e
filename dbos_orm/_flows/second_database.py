"""Transactional steps on another database than the workflow's: exactly once all the same.

The checkpoint is a row of ``dbos_transaction_output``, committed there with the user's rows, whose key is
the workflow, its generation and the step. Only then is the step recorded in the history. Whoever continues a run
looks there first, and whoever comes second with a commit finds the key taken. That database does not know
who owns the workflow: what it cannot fence is asked of this process just before the commit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NoReturn, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from dbos_orm._context import RecordedStep, Run, StepKey
from dbos_orm._dialects import Fault
from dbos_orm._flows.checkpoint_places import Place, Settled
from dbos_orm._flows.effects import Ask, Flow, Maker, Outcome, Pause, Reach, Source, Unreachable
from dbos_orm._flows.transaction_faults import Pauses
from dbos_orm._outcomes import Raised, Returned
from dbos_orm._store import second_database
from dbos_orm._store.entries import OutputEntry, StepEntry
from dbos_orm.errors import DatabaseUnavailableError, DBOSError

T = TypeVar("T")


def reach(run: Run, name: str, maker: Maker) -> Flow[Source]:
    """Where the sessions of a maker come from, as soon as its database answers.

    Raises:
        OwnershipLost: it cannot be used here; that is this process's trouble, and no outcome of the step.
    """
    pauses = Pauses()
    while True:
        reached = yield from Reach(maker)
        if not isinstance(reached, Unreachable):
            return reached
        if reached.fault is Fault.REJECTED:
            run.stop_here(reached.error)
        pauses.warn(reached.error)
        yield from Pause(pauses.next(), run)
        run.require_live(name)


class SecondDatabase(Place):
    """A database that has the user's rows and ``dbos_transaction_output``."""

    def look_back(self, key: StepKey, name: str, digest: str | None) -> Flow[Settled | None]:
        run = self._run
        if not run.is_continued:
            return None
        found = yield from self._find(key, name)
        if found is None:
            return None
        run.require_same(key, found, name, digest)
        outcome = self._env.replay(run, found)
        entry = self._env.step_entry(run, key, name, "transaction", found.output, found.error, digest=digest)
        return Settled(outcome, replace(entry, serializer=found.serializer))

    def require_openable(self, error: BaseException) -> None:
        if isinstance(error, DBAPIError) and self.source.dialect.fault(error) is Fault.REJECTED:
            self._stop_here(error)

    def checkpoint(self, entry: StepEntry) -> OutputEntry:
        run = self._run
        return OutputEntry(
            run.workflow_id,
            run.generation,
            entry.scope,
            entry.step_id,
            entry.owner_token,
            entry.write_id,
            entry.name,
            entry.output,
            entry.error,
            entry.serializer,
            entry.started_at,
            entry.digest,
            is_contested=run.is_continued,
        )

    def require_live(self, name: str) -> None:
        self._run.require_live(name)

    def settled(self, entry: StepEntry, outcome: Outcome) -> Settled:
        return Settled(outcome, entry)

    def settle(self, entry: StepEntry) -> Flow[RecordedStep | None]:
        return (yield from self._settle(entry, keep=False))

    def find(self, entry: StepEntry) -> Flow[RecordedStep | None]:
        return (yield from self._find(StepKey(entry.scope, entry.step_id), entry.name))

    def after_conflict(self, entry: StepEntry) -> Flow[RecordedStep | None]:
        # An earlier owner may be about to commit. Waiting for that costs no tries.
        return (yield from self._settle(entry, keep=False)) if self._run.is_continued else None

    def require_writable(self, name: str) -> Flow[None]:
        yield from self._ask(second_database.require_transaction_output, name)

    def await_database(self, outcome: Outcome, pauses: Pauses) -> Flow[None]:
        yield from ()
        if isinstance(outcome, Raised):
            pauses.warn(outcome.error)

    def settle_failure(self, entry: StepEntry, outcome: Outcome) -> Flow[Settled]:
        if not self._run.is_continued:
            return Settled(outcome, entry)
        # An earlier owner that was only stopped may still commit. With the key taken it cannot, and the rows of a
        # step whose error the workflow has seen are never there.
        found = yield from self._settle(entry, keep=True)
        return Settled(outcome, entry) if found is None else self.adopted(entry, outcome, found)

    def _find(self, key: StepKey, name: str) -> Flow[RecordedStep | None]:
        run = self._run
        find = partial(second_database.find_output, workflow_id=run.workflow_id, generation=run.generation, key=key)
        return (yield from self._ask(find, name))

    def _settle(self, entry: StepEntry, *, keep: bool) -> Flow[RecordedStep | None]:
        dialect, contested = self.source.dialect, replace(self.checkpoint(entry), is_contested=True)
        settle = partial(second_database.settle_output, dialect=dialect, entry=contested, keep=keep)
        return (yield from self._ask(settle, entry.name))

    def _ask(self, verb: Callable[[Connection], T], name: str) -> Flow[T]:
        """The answer of the database, as soon as there is one; nothing that is wrong with it is the step's outcome."""
        pauses = Pauses()
        while True:
            answer = yield from Ask(self.source, verb)
            if isinstance(answer, Returned):
                value: T = answer.value
                return value
            if self.source.dialect.fault(answer.error) is Fault.REJECTED:
                self._stop_here(answer.error)
            pauses.warn(answer.error)
            yield from Pause(pauses.next(), self._run)
            self._run.require_live(name)

    def _stop_here(self, error: BaseException) -> NoReturn:
        if isinstance(error, DBOSError):
            self._run.stop_here(error)
        self._run.stop_here(DatabaseUnavailableError(self.source.url, 0, error))
