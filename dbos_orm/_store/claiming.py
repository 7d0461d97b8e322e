"""Claims: which of the workflows that wait a process gets.

What a claim asks for is a list of ``Share``: one for each queue, or for each partition of one queue. A share is
read off an index in the order in which it is to be run, one look for each workflow name and version that the
process can run, so that neither finished rows nor rows of other versions are passed on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from dbos_orm._dialects import AnyConnection, Dialect
from dbos_orm._registry import Runnable
from dbos_orm._store.claim_statement import ClaimForm, ClaimStatement, Kinds, insert_rate_starts
from dbos_orm._store.entries import INTERNAL_QUEUE
from dbos_orm._store.queue_rows import Limits

_SIZES: Final = (1, 4, 16, 64)
"""How many partitions a statement is built for; those that are not needed get nothing."""


class Claimant(NamedTuple):
    """Who claims: a process, the token of this claim, and what it can run."""

    application: str
    executor_id: str
    owner_token: str
    runnable: Sequence[Runnable]


class Share(NamedTuple):
    """Up to ``limit`` workflows of one queue, of these kinds; in a partitioned queue those of one key."""

    queue: str
    runnable: Sequence[Runnable]
    limit: int
    partition_key: str | None = None


class ClaimedRun(NamedTuple):
    """A workflow that the claimant owns now, with all that is needed to run it.

    ``remaining``: seconds to the deadline. ``has_history`` is false if nothing can have been recorded, and
    ``was_begun`` is false if nobody can have run it before.
    """

    workflow_id: str
    name: str
    class_name: str | None
    config_name: str | None
    input: str | None
    serializer: str
    parent_id: str | None
    deadline: datetime | None
    remaining: float | None
    recovery_attempts: int
    generation: str
    has_history: bool
    was_begun: bool
    queue: str | None
    partition_key: str | None


def claim(
    connection: AnyConnection, dialect: Dialect, claimant: Claimant, shares: Sequence[Share], *, limit: int
) -> list[ClaimedRun]:
    """Hand up to ``limit`` workflows that wait in queues without limits to the claimant; one statement.

    Lowest priority number first, then in the order of their starts; the queues take turns. Two claimants
    never receive the same workflow: rows are locked with SKIP LOCKED on PostgreSQL, by the one writer on SQLite.
    Fewer may come back while others are locked. A queue that has got limits meanwhile, or is paused,
    gives nothing. The version is stamped here, unless it was pinned or stamped before.
    """
    # What is lost with the server before it reaches the disk was run by nobody that could record anything of it.
    form = ClaimForm(tuple(_kinds(share) for share in shares), is_durable=False)
    return _execute(connection, dialect, claimant, shares, form, {"free": limit})


def claim_limited(
    connection: AnyConnection, dialect: Dialect, claimant: Claimant, shares: Sequence[Share], limits: Limits, limit: int
) -> list[ClaimedRun]:
    """``claim`` for shares of one queue whose row the transaction has locked: what its limits leave free.

    Runs are counted in this statement, which sees what was committed before the lock was given. A start for a rate
    limit is written down; a run that goes on after its process died has its start already.
    """
    shares = _padded(shares)
    form = ClaimForm(
        tuple(_kinds(share) for share in shares),
        is_keyed=limits.partitioned,
        is_locked=True,
        has_concurrency=limits.concurrency is not None,
        has_rate=limits.rate_limit is not None,
    )
    parameters = {"free": limit}
    if limits.concurrency is not None:
        parameters["concurrency"] = limits.concurrency
    if limits.rate_limit is not None and limits.rate_period is not None:
        parameters["rate_limit"], parameters["window"] = limits.rate_limit, -limits.rate_period
    claimed = _execute(connection, dialect, claimant, shares, form, parameters)
    if claimed and limits.rate_limit is not None:
        given = {"owner_token": claimant.owner_token, "application": claimant.application, "queue": shares[0].queue}
        dialect.prepared("rate_starts", lambda: insert_rate_starts(dialect)).execute(connection, given)
    return claimed


def _padded(shares: Sequence[Share]) -> Sequence[Share]:
    size = next((size for size in _SIZES if size >= len(shares)), len(shares))
    return [*shares, *[shares[-1]._replace(limit=0)] * (size - len(shares))]


def _kinds(share: Share) -> Kinds:
    place = "i" if share.queue == INTERNAL_QUEUE else "q" if share.partition_key is None else "k"
    return place + "".join("f" if one.class_name is None else "m" for one in share.runnable)


def _execute(
    connection: AnyConnection,
    dialect: Dialect,
    claimant: Claimant,
    shares: Sequence[Share],
    form: ClaimForm,
    parameters: Mapping[str, Any],
) -> list[ClaimedRun]:
    stamps = {one.name: one.version for share in shares for one in share.runnable}
    given: dict[str, Any] = {
        **parameters,
        "application": claimant.application,
        "executor_id": claimant.executor_id,
        "owner_token": claimant.owner_token,
    }
    for number, (name, version) in enumerate(stamps.items()):
        given[f"name_{number}"], given[f"version_{number}"] = name, version
    numbers = {name: number for number, name in enumerate(stamps)}
    names = []
    for place, share in enumerate(shares):
        given[f"queue_{place}"], given[f"limit_{place}"] = share.queue, share.limit
        if share.partition_key is not None:
            given[f"key_{place}"] = share.partition_key
        for branch, one in enumerate(share.runnable):
            names.append(numbers[one.name])
            if one.class_name is not None:
                given[f"class_{place}_{branch}"] = one.class_name
                given[f"config_{place}_{branch}"] = one.config_name
    statement = dialect.prepared(
        ("claim", form, tuple(names), len(stamps)), lambda: ClaimStatement(dialect, form, names, len(stamps)).build()
    )
    rows = sorted(statement.execute(connection, given), key=lambda row: (row[-2], row[-1]))
    return [claimed_run(row) for row in rows]


def claimed_run(row: Sequence[Any]) -> ClaimedRun:
    """What ``claimed_columns`` gave, also as the driver gave it."""
    deadline = row[7]
    if isinstance(deadline, str):
        deadline = datetime.fromisoformat(deadline)
    if deadline is not None:
        deadline = deadline.astimezone(UTC)
    fields = (*row[:7], deadline, *row[8:11], bool(row[11]), bool(row[12]), *row[13:15])
    return ClaimedRun._make(fields)
