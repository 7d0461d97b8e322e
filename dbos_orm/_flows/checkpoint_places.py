"""Where the checkpoint of a transactional step is: beside the rows of its transaction."""

from __future__ import annotations

import abc
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from dbos_orm._context import RecordedStep, Run, StepKey
from dbos_orm._flows.effects import Flow, Outcome, Pause, Probe, Read, Source, WriteResult
from dbos_orm._flows.environment import Environment
from dbos_orm._flows.recording import adopt, find_recorded
from dbos_orm._flows.transaction_faults import Pauses
from dbos_orm._store.entries import OutputEntry, StepEntry
from dbos_orm._store.history import find_run


class Settled(NamedTuple):
    """What a step came to, for good. ``entry``: what the history is still to be told of it."""

    outcome: Outcome
    entry: StepEntry | None


class Place(abc.ABC):
    """The database of one transactional step, as far as its checkpoint goes."""

    def __init__(self, env: Environment, run: Run, source: Source) -> None:
        self._env = env
        self._run = run
        self.source = source

    @abc.abstractmethod
    def look_back(self, key: StepKey, name: str, digest: str | None) -> Flow[Settled | None]:
        """What an earlier owner has committed, where the history does not have it."""

    @abc.abstractmethod
    def require_openable(self, error: BaseException) -> None:
        """Raise what ends the run here if a session that cannot be opened is no outcome of the step."""

    @abc.abstractmethod
    def checkpoint(self, entry: StepEntry) -> StepEntry | OutputEntry:
        """What is written in the transaction."""

    @abc.abstractmethod
    def require_live(self, name: str) -> None:
        """Raise what ended the run, where the database itself does not refuse a commit of the dead."""

    @abc.abstractmethod
    def settled(self, entry: StepEntry, outcome: Outcome) -> Settled:
        """What the step came to with the commit of its transaction."""

    @abc.abstractmethod
    def settle(self, entry: StepEntry) -> Flow[RecordedStep | None]:
        """What is committed under the key of ``entry``, when no commit is in doubt any more.

        The key is inserted again and taken back: that waits for the old backend if it is still busy with it.
        """

    @abc.abstractmethod
    def find(self, entry: StepEntry) -> Flow[RecordedStep | None]:
        """What is committed under the key of ``entry``."""

    @abc.abstractmethod
    def after_conflict(self, entry: StepEntry) -> Flow[RecordedStep | None]:
        """What is committed under the key of ``entry``, when writing it met another transaction."""

    @abc.abstractmethod
    def require_writable(self, name: str) -> Flow[None]:
        """Raise what ends the run here if checkpoints cannot be written at all."""

    @abc.abstractmethod
    def await_database(self, outcome: Outcome, pauses: Pauses) -> Flow[None]:
        """Wait until the database is back, however long it is away, or only say that it is."""

    @abc.abstractmethod
    def settle_failure(self, entry: StepEntry, outcome: Outcome) -> Flow[Settled]:
        """Have the failure of the last transaction be what the step came to."""

    def adopted(self, entry: StepEntry, outcome: Outcome, found: RecordedStep) -> Settled:
        """What the step came to when ``found`` is what is recorded of it.

        Raises:
            NonDeterministicError: it is another step's.
        """
        other = adopt(self._run, entry, found)
        if other is None:
            return self.settled(entry, outcome)
        replayed = self._env.replay(self._run, other)
        return self.settled(
            replace(entry, output=other.output, error=other.error, serializer=other.serializer), replayed
        )


class OwnDatabase(Place):
    """The workflow's database: the checkpoint is a row of its history, fenced by its status row."""

    def look_back(self, key: StepKey, name: str, digest: str | None) -> Flow[Settled | None]:
        """Nothing: the history that was loaded has it all."""
        yield from ()
        return None

    def require_openable(self, error: BaseException) -> None:
        return None

    def checkpoint(self, entry: StepEntry) -> StepEntry:
        return entry

    def require_live(self, name: str) -> None:
        return None

    def settled(self, entry: StepEntry, outcome: Outcome) -> Settled:
        return Settled(outcome, None)

    def settle(self, entry: StepEntry) -> Flow[RecordedStep | None]:
        pauses = Pauses()
        while True:
            result = yield from Probe(entry, self._run)
            if result is WriteResult.WRITTEN:
                return None
            if result is WriteResult.REFUSED:
                return (yield from find_recorded(self._env, self._run, entry))
            yield from Pause(pauses.next(), self._run)
            self._run.require_live(entry.name)

    def find(self, entry: StepEntry) -> Flow[RecordedStep | None]:
        return (yield from find_recorded(self._env, self._run, entry))

    def after_conflict(self, entry: StepEntry) -> Flow[RecordedStep | None]:
        yield from ()
        return None

    def require_writable(self, name: str) -> Flow[None]:
        yield from ()

    def await_database(self, outcome: Outcome, pauses: Pauses) -> Flow[None]:
        yield from Read(partial(find_run, workflow_id=self._run.workflow_id), self._run)

    def settle_failure(self, entry: StepEntry, outcome: Outcome) -> Flow[Settled]:
        yield from ()
        return Settled(outcome, entry)
