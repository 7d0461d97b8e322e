"""The life of a step: look up, call, try again, record."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dbos_orm._context import Frame, RecordedAttempt, Run, RunningStep, StepKey
from dbos_orm._flows.effects import Flow, Invoke, Outcome, Pause
from dbos_orm._flows.environment import Environment
from dbos_orm._flows.recording import record_attempt, record_step
from dbos_orm._outcomes import Raised
from dbos_orm._retry import Retry
from dbos_orm._settings import StepSettings
from dbos_orm._store.entries import AttemptEntry, Kind
from dbos_orm._time_limits import TimeLimit
from dbos_orm.errors import MaxStepRetriesExceededError

_MICROSECONDS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class StepCall:
    """One call of a step function, with the place that was drawn for it."""

    key: StepKey
    name: str
    function: Callable[..., Any]
    arguments: Sequence[Any]
    keywords: Mapping[str, Any]
    settings: StepSettings
    digest: str | None = None


def step(env: Environment, frame: Frame, call: StepCall) -> Flow[Outcome]:
    """Give the recorded outcome of the step, or run it, record what came out, and give that.

    A failed attempt that is to be tried again is recorded before the wait for the next one, so that a
    crash forgets neither its number nor its time.
    """
    run = frame.run
    recorded = run.recorded(call.key, call.name, call.digest)
    if recorded is not None:
        return env.replay(run, recorded)
    retry, timeout, max_attempts = call.settings.retry, call.settings.timeout, call.settings.max_attempts
    failed = [] if run.attempts is None else run.attempts.get(call.key, [])
    errors = [env.codec.decode_error(attempt.error, attempt.serializer) for attempt in failed]
    if failed:
        yield from Pause(_left_of(env, failed[-1]), run)
    while True:
        run.require_live(call.name)
        started_at = env.instant()
        attempt = len(errors) + 1
        limit = None if timeout is None else TimeLimit(call.name, timeout)
        info = RunningStep(call.key, call.name, attempt, max_attempts, transactional=False, limit=limit)
        outcome: Outcome = yield from Invoke(
            call.function, call.arguments, call.keywords, Frame(run, frame.scope, info), limit=limit
        )
        if not isinstance(outcome, Raised):
            break
        if not isinstance(outcome.error, Exception):
            return outcome
        if retry is None or not retry.applies_to(outcome.error):
            break
        errors.append(outcome.error)
        if attempt >= max_attempts:
            outcome = Raised(_exhausted(call.name, errors))
            break
        yield from _wait_for_next_attempt(env, run, call, retry, errors, started_at)
    return (yield from record_outcome(env, run, call.key, call.name, "step", outcome, attempt, started_at, call.digest))


def record_outcome(
    env: Environment,
    run: Run,
    key: StepKey,
    name: str,
    kind: Kind,
    outcome: Outcome,
    attempts: int,
    started_at: str,
    digest: str | None = None,
) -> Flow[Outcome]:
    """Record what a step came to, and give what a replay will give."""
    if run.stop is not None:
        # Whoever continues this run gets an outcome of their own; this one is dropped.
        raise run.stop
    outcome, output, error = env.encode_outcome(outcome)
    entry = env.step_entry(run, key, name, kind, output, error, attempts=attempts, started_at=started_at, digest=digest)
    recorded = yield from record_step(env, run, entry)
    return outcome if recorded is None else env.replay(run, recorded)


def _wait_for_next_attempt(
    env: Environment, run: Run, call: StepCall, retry: Retry, errors: Sequence[BaseException], started_at: str
) -> Flow[None]:
    seconds = retry.pause_after(len(errors), random.random())
    entry = AttemptEntry(
        run.workflow_id,
        call.key.scope,
        call.key.step_id,
        len(errors),
        run.owner_token,
        env.identifiers.write_id(),
        call.name,
        env.codec.encode_error(errors[-1]),
        env.codec.name,
        started_at,
        round(seconds * _MICROSECONDS),
    )
    yield from record_attempt(run, entry)
    yield from Pause(seconds, run)


def _exhausted(name: str, errors: Sequence[BaseException]) -> MaxStepRetriesExceededError:
    error = MaxStepRetriesExceededError(name, len(errors), list(errors))
    error.__cause__ = errors[-1]
    return error


def _left_of(env: Environment, attempt: RecordedAttempt) -> float:
    return max(0.0, attempt.remaining - (env.clock.monotonic() - attempt.loaded_at))
