"""What flows know about the application that they run in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dbos_orm._clock import Clock
from dbos_orm._context import RecordedStep, Run, StepKey
from dbos_orm._dialects import Dialect
from dbos_orm._flows.effects import Outcome
from dbos_orm._identifiers import IdentifierSource
from dbos_orm._outcomes import Raised, Returned
from dbos_orm._registry import Registry
from dbos_orm._store.entries import Kind, StepEntry
from dbos_orm._surroundings import NOTHING, Surroundings
from dbos_orm.config import Config
from dbos_orm.errors import SerializationError
from dbos_orm.serialization import Codec


@dataclass(frozen=True, slots=True)
class Environment:
    """The parts of an application that need no I/O."""

    application: str
    config: Config
    clock: Clock
    codec: Codec
    registry: Registry
    dialect: Dialect
    identifiers: IdentifierSource
    drop: Callable[[Run], None]
    """Takes a run that is stored, perhaps, and that nobody here executes: whoever can may have it."""
    surroundings: Surroundings = NOTHING
    queues: dict[str, bool] = field(default_factory=dict)
    """Queues that were found in the database, and whether each is partitioned."""

    def instant(self) -> str:
        """The present instant as text, for columns that are for people."""
        return self.clock.now().isoformat(timespec="microseconds")

    def step_entry(
        self,
        run: Run,
        key: StepKey,
        name: str,
        kind: Kind,
        output: str | None = None,
        error: str | None = None,
        *,
        attempts: int = 1,
        started_at: str | None = None,
        digest: str | None = None,
    ) -> StepEntry:
        """What is to be recorded of a step; each entry is another write."""
        return StepEntry(
            run.workflow_id,
            key.scope,
            key.step_id,
            run.owner_token,
            self.identifiers.write_id(),
            name,
            kind,
            output,
            error,
            self.codec.name,
            attempts,
            started_at or self.instant(),
            digest=digest,
        )

    def digest_of(self, key: StepKey, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> str | None:
        """What tells the arguments of a call from others; None in the root scope, where the order of calls is enough.

        Coroutines that run side by side call the same functions: if a replay opened them in another order, names
        and numbers would be the same, and each would be given the results of another.
        """
        return self.codec.digest_of_arguments(tuple(arguments), dict(keywords)) if key.scope else None

    def encode_outcome(self, outcome: Outcome) -> tuple[Outcome, str | None, str | None]:
        """The outcome as it will be replayed, its encoded value and its encoded error.

        A value that would not come back the same becomes the ``SerializationError`` that says so. An error whose
        type a replay could not give back is replaced at once by what it would give, so that an
        ``except`` in the workflow decides the same way both times.
        """
        if isinstance(outcome, Returned):
            try:
                output = self.codec.encode(outcome.value, root="result")
                if self.config.verify_values:
                    outcome = Returned(self.codec.decode(output, self.codec.name))
                return outcome, output, None
            except SerializationError as error:
                outcome = Raised(error)
        text = self.codec.encode_error(outcome.error)
        replayed = self.codec.decode_error(text, self.codec.name)
        if type(replayed) is not type(outcome.error):
            replayed.__cause__ = outcome.error
            outcome = Raised(replayed)
        return outcome, None, text

    def decode_outcome(self, output: str | None, error: str | None, serializer: str) -> Outcome:
        """The value or error that was recorded.

        Raises:
            SerializationError: this process cannot read it.
        """
        if error is not None:
            return Raised(self.codec.decode_error(error, serializer))
        return Returned(None if output is None else self.codec.decode(output, serializer))

    def replay(self, run: Run, recorded: RecordedStep) -> Outcome:
        """The outcome of a step that was recorded before.

        A row that this process cannot read ends the run here: it stays as it is, for a process that can.
        """
        try:
            return self.decode_outcome(recorded.output, recorded.error, recorded.serializer)
        except SerializationError as error:
            run.stop_here(error)
