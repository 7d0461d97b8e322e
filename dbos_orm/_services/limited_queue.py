"""A queue whose limits hold for all processes together, or for each of its partitions."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from functools import partial
from math import inf
from typing import Final, NamedTuple

from dbos_orm._clock import steady_seconds
from dbos_orm._dialects import AnyConnection
from dbos_orm._drivers.binding import Binding
from dbos_orm._drivers.own_line import OwnLine
from dbos_orm._services.intake import Intake
from dbos_orm._store import queue_rows
from dbos_orm._store.claiming import Claimant, ClaimedRun, Share, claim_limited
from dbos_orm._store.queue_rows import Limits

_KEYS: Final = 16
"""Partitions that one claim looks at; the next one goes on behind them."""
_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 1.0
_LOCKED_SECONDS: Final = 0.004
_LONGEST_LOCKED_SECONDS: Final = 0.25
_LOCKED_LOOKS: Final = 16
_PRUNE_SECONDS: Final = 60.0


class _Claim(NamedTuple):
    """What came of a claim: ``asked`` runs at most, ``again_in`` by the rate limit."""

    claimed: list[ClaimedRun]
    asked: int
    is_locked: bool = False
    again_in: float = inf
    keys: Sequence[str] = ()

    @property
    def is_partial(self) -> bool:
        """Whether more partitions may wait than those that were looked at."""
        return len(self.keys) == _KEYS


class LimitedQueue:
    """Claims from one such queue while its row is locked, and knows when it is worth trying again."""

    def __init__(self, binding: Binding, intake: Intake, queue: str) -> None:
        self._binding = binding
        self._intake = intake
        self._queue = queue
        self._pause = _FIRST_PAUSE_SECONDS
        self._not_before = 0.0
        self._prune_at = 0.0
        self._vain_keys: set[str] = set()
        self._locked_looks = 0

    def hurry(self) -> None:
        """Try again at once: something has changed."""
        self._not_before, self._pause = 0.0, _FIRST_PAUSE_SECONDS

    def claim(self, line: OwnLine, share: Share, limit: int) -> tuple[int, float]:
        """Claim up to ``limit``; give how many there were, and after how many seconds to try again."""
        now = steady_seconds()
        if limit < 1:
            return 0, inf
        if now < self._not_before:
            return 0, self._not_before - now
        found: list[_Claim] = []
        claimant = self._intake.claimant()

        def once() -> list[ClaimedRun]:
            verb = partial(self._claim_locked, claimant=claimant, share=share, limit=limit)
            found.append(line.transaction(verb))
            return found[-1].claimed

        self._intake.take(claimant, once)
        return len(found[-1].claimed), self._next(found[-1])

    def _next(self, found: _Claim) -> float:
        if found.is_locked:
            # Another claim has the row for some milliseconds; somebody's own transaction has it for longer.
            doublings = max(0, self._locked_looks - _LOCKED_LOOKS)
            seconds = min(_LOCKED_SECONDS * 2.0 ** min(doublings, 10), _LONGEST_LOCKED_SECONDS)
            seconds *= 0.5 + random.random()
            self._locked_looks += 1
            self._not_before = steady_seconds() + seconds
            return seconds
        self._locked_looks = 0
        if found.claimed:
            self._vain_keys.clear()
        if found.is_partial and (found.claimed or not self._vain_keys.issuperset(found.keys)):
            if not found.claimed:
                self._vain_keys.update(found.keys)
            seconds = 0.0
        elif not found.is_partial and found.claimed and len(found.claimed) >= found.asked:
            seconds = 0.0
        else:
            self._vain_keys.clear()
            if found.claimed:
                self._pause = _FIRST_PAUSE_SECONDS
            seconds = min(found.again_in, self._pause)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        self._not_before = steady_seconds() + seconds
        return seconds

    def _claim_locked(self, connection: AnyConnection, *, claimant: Claimant, share: Share, limit: int) -> _Claim:
        dialect, application = self._binding.dialect, claimant.application
        limits = queue_rows.lock_queue(connection, dialect, application, self._queue)
        if limits is None:
            return _Claim([], 0, is_locked=True)
        if limits.paused:
            return _Claim([], 0)
        keys = self._keys(connection, application, limits) if limits.partitioned else []
        shares = self._shares(share, limits, limit, keys)
        asked = min(limit, sum(each.limit for each in shares))
        # Where these partitions take all that they may have here, the next ones get their turn.
        claimed = claim_limited(connection, dialect, claimant, shares, limits, limit) if asked else []
        if keys:
            last = _last_served(keys, claimed) or (keys[-1] if len(keys) == _KEYS else None)
            if last is not None and last != limits.partition_cursor:
                queue_rows.note_last_key(connection, dialect, application, self._queue, last)
        again_in = inf
        if limits.rate_period is not None:
            self._prune(connection, application, limits.rate_period)
            if asked and len(claimed) < asked:
                until = queue_rows.seconds_until_start(
                    connection, dialect, application, self._queue, limits.rate_period
                )
                again_in = inf if until is None else max(0.0, until) + 0.001
        return _Claim(claimed, asked, again_in=again_in, keys=keys)

    def _keys(self, connection: AnyConnection, application: str, limits: Limits) -> list[str]:
        """The next partitions that wait, behind the one that was served last, and around."""
        find = partial(queue_rows.waiting_keys, connection, self._binding.dialect, application, self._queue)
        cursor = limits.partition_cursor or ""
        keys = find(after=cursor, limit=_KEYS)
        if cursor and len(keys) < _KEYS:
            known = set(keys)
            keys += [key for key in find(after="", limit=_KEYS - len(keys)) if key not in known]
        return keys

    def _shares(self, share: Share, limits: Limits, limit: int, keys: Sequence[str]) -> list[Share]:
        slots, here = self._intake.slots, limits.worker_concurrency
        if not limits.partitioned:
            left = limit if here is None else min(limit, here - slots.taken(self._queue))
            return [share._replace(limit=left)] if left > 0 else []
        lefts = {key: limit if here is None else min(limit, here - slots.taken_of(self._queue, key)) for key in keys}
        return [share._replace(limit=left, partition_key=key) for key, left in lefts.items() if left > 0]

    def _prune(self, connection: AnyConnection, application: str, period: int) -> None:
        if steady_seconds() >= self._prune_at:
            self._prune_at = steady_seconds() + _PRUNE_SECONDS
            queue_rows.prune_rate_starts(connection, self._binding.dialect, application, self._queue, period)


def _last_served(keys: Sequence[str], claimed: Sequence[ClaimedRun]) -> str | None:
    """The partition whose turn was the last one: the turns go through the keys in their order."""
    turns = Counter(one.partition_key for one in claimed)
    if not turns:
        return None
    longest = max(turns.values())
    return next(key for key in reversed(keys) if turns[key] == longest)
