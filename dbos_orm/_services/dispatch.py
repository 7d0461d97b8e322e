"""Which queues have work for this process, and how much of it may be claimed now."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from math import inf
from typing import Final

from dbos_orm._clock import steady_seconds
from dbos_orm._context import Run, logger
from dbos_orm._drivers.binding import Binding
from dbos_orm._drivers.own_line import OwnLine
from dbos_orm._registry import RegisteredWorkflow, Runnable
from dbos_orm._services.intake import Intake
from dbos_orm._services.limited_queue import LimitedQueue
from dbos_orm._store.claiming import Claimant, ClaimedRun, Share, claim
from dbos_orm._store.entries import INTERNAL_QUEUE
from dbos_orm._store.overview import ObservedQueue, Overview

_KINDS: Final = 16
"""Workflow names and instances that one statement asks for: each is two looks at an index."""
_VAIN_LOOKS: Final = 3
_VAIN_SECONDS: Final = 5.0

Pair = tuple[str, str]
"""A queue, and the name of a workflow that waits in it."""


class Dispatch:
    """Claims from all queues of an application, for one caller at a time.

    It claims where it was told that something waits (``hear``, from any thread, and ``see``), never more than
    there are free slots, and forgets a queue that gave less than was asked for until it is told again.
    """

    def __init__(self, binding: Binding, intake: Intake, served: Sequence[str] | None = None) -> None:
        self.is_hungry = False
        """Whether something waits that there was no slot for: then the end of a run is worth another claim."""
        self.left_behind: list[Pair] = []
        """What still waits, as far as this process knows, that it has no slot for: others might."""
        self._binding = binding
        self._intake = intake
        self.line = OwnLine(binding.gateway)
        """The connection of whoever calls ``claim``, for what else that thread asks."""
        self._served = None if served is None else frozenset([*served, INTERNAL_QUEUE])
        self._lock = threading.Lock()
        self._heard: dict[Pair, float] = {}
        self._waiting: dict[Pair, float] = {}
        self._vain: Counter[Pair] = Counter()
        self._not_before: dict[Pair, float] = {}
        self._queues: dict[str, ObservedQueue] = {}
        self._limited: dict[str, LimitedQueue] = {}
        self._unknown: set[Pair] = set()

    # -- what waits ------------------------------------------------------------------------------

    def serves(self, queue: str) -> bool:
        """Whether this process takes work from the queue."""
        return self._served is None or queue in self._served

    def hear(self, queue: str, name: str) -> bool:
        """Note that a workflow of this name waits; False if this process does not run such."""
        if not self.serves(queue) or not self._binding.environment.registry.has_workflow(name):
            return False
        with self._lock:
            self._heard[queue, name] = steady_seconds()
        limited = self._limited.get(queue)
        if limited is not None:
            limited.hurry()
        return True

    def see(self, overview: Overview, asked_at: float) -> bool:
        """Note what waits and which queues there are, as it was at some moment; True if a claim is worth while."""
        self._queues = {queue.name: queue for queue in overview.queues}
        self._renew_known()
        paused = {queue.name for queue in overview.queues if queue.paused}
        waiting = {pair for pair in overview.waiting if self.serves(pair[0])}
        has_workflow = self._binding.environment.registry.has_workflow
        for pair in waiting:
            if not has_workflow(pair[1]):
                self._warn_of_unknown(pair)
        claimable = [pair for pair in waiting if pair[0] not in paused and has_workflow(pair[1])]
        with self._lock:
            return self._renew_waiting(claimable, asked_at)

    def _renew_waiting(self, claimable: Sequence[Pair], asked_at: float) -> bool:
        now, found, seen = steady_seconds(), False, set(claimable)
        for pair in [pair for pair, heard in self._waiting.items() if pair not in seen and heard <= asked_at]:
            del self._waiting[pair]
        # What somebody else has claimed meanwhile was no vain look: only what stays is for nobody here.
        for pair in self._vain.keys() - seen:
            self._is_claimable(pair)
        for pair in claimable:
            if self._not_before.get(pair, 0.0) <= now:
                self._waiting.setdefault(pair, asked_at)
                found = True
        return found

    def _renew_known(self) -> None:
        """Have starts in this process hear of queues that were changed or deleted elsewhere."""
        known, now = (
            self._binding.environment.queues,
            {queue.name: queue.partitioned for queue in self._queues.values()},
        )
        if known != now:
            known.clear()
            known.update(now)

    def released(self, queue: str) -> None:
        """Note that a run of a queue has ended here, so that its slot is free."""
        limited = self._limited.get(queue)
        if limited is not None:
            limited.hurry()

    def hurry(self) -> None:
        """Forget every reason to wait before the next claim."""
        with self._lock:
            self._not_before.clear()
        for limited in list(self._limited.values()):
            limited.hurry()

    def _warn_of_unknown(self, pair: Pair) -> None:
        if pair not in self._unknown:
            self._unknown.add(pair)
            logger.warning(
                "workflows %r wait in queue %r; this process has no workflow of that name registered", pair[1], pair[0]
            )

    # -- places of this process ------------------------------------------------------------------

    def take(self, run: Run, workflow: RegisteredWorkflow, queue: str) -> bool:
        """Give a run that is being started here a slot; False where others wait, or all processes share a limit.

        What other processes know of the queue by now, the statement that writes the run finds out.
        """
        observed = self._queues.get(queue)
        if observed is None or observed.has_limits or observed.paused or not self.serves(queue):
            return False
        with self._lock:
            if any(pair[0] == queue for waiting in (self._heard, self._waiting) for pair in waiting):
                return False
        if self._binding.free < 1 or not self._binding.takes(workflow):
            return False
        return self._intake.slots.take_one_of(observed.worker_concurrency, run, queue)

    def leave(self, run: Run) -> None:
        """Take the slot back from a run that has not begun."""
        queue = self._intake.slots.release(run)
        if queue is not None:
            self.released(queue)

    # -- claims ----------------------------------------------------------------------------------

    def claim(self) -> tuple[int, float]:
        """Claim and run what may be run now; give how many, and after how many seconds to claim again at the latest."""
        with self._lock:
            self._waiting.update(self._heard)
            self._heard.clear()
            waiting = list(self._waiting)
        # Before it looks for slots, so that the end of a run between that and the claim is not missed.
        self.is_hungry = bool(waiting)
        if not waiting:
            return 0, inf
        claimant = self._intake.claimant()
        plain, limited = self._divided(claimant, waiting)
        claimed = sum(self._claim_plain(claimant, shares) for shares in _in_statements(plain))
        again = inf
        for share in limited:
            queue = self._limited.setdefault(share.queue, LimitedQueue(self._binding, self._intake, share.queue))
            count, seconds = queue.claim(self.line, share, min(self._binding.free, share.limit))
            claimed += count
            again = min(again, seconds)
        with self._lock:
            waiting = list(self._waiting)
        self.is_hungry = bool(waiting)
        self.left_behind = self._for_others(claimant, waiting)
        return claimed, again

    def _is_paused(self, queue: str) -> bool:
        observed = self._queues.get(queue)
        return observed is not None and observed.paused

    def close(self) -> None:
        """Give back the connection."""
        self.line.close()

    def _for_others(self, claimant: Claimant, waiting: Sequence[Pair]) -> list[Pair]:
        """Those that wait for want of room in this process; what limits of all processes hold back, they hold back."""
        is_full, runnable = self._binding.free < 1, {one.name for one in claimant.runnable}
        pairs = []
        for pair in waiting:
            queue = self._queues.get(pair[0])
            is_held_back = queue is not None and queue.has_limits and queue.worker_concurrency is None
            if not self._is_paused(pair[0]) and (is_full or pair[1] not in runnable or not is_held_back):
                pairs.append(pair)
        return pairs

    def _divided(self, claimant: Claimant, waiting: Sequence[Pair]) -> tuple[list[Share], list[Share]]:
        """What to ask for: of the queues that may be claimed from at once, and of those with limits for all."""
        runnable: dict[str, list[Runnable]] = {}
        for one in claimant.runnable:
            runnable.setdefault(one.name, []).append(one)
        kinds: dict[str, list[Runnable]] = {}
        for queue, name in waiting:
            kinds.setdefault(queue, []).extend(runnable.get(name, ()))
        plain, limited, free = [], [], self._binding.free
        for queue, here in kinds.items():
            observed = self._queues.get(queue)
            if not here or free < 1 or self._is_paused(queue):
                continue
            if observed is not None and observed.has_limits:
                limited.append(Share(queue, here, free))
                continue
            plain.append(Share(queue, here, free))
        return plain, limited

    def _room(self, queue: str) -> int:
        free, observed = self._binding.free, self._queues.get(queue)
        if observed is None or observed.worker_concurrency is None:
            return free
        return min(free, observed.worker_concurrency - self._intake.slots.taken(queue))

    def _claim_plain(self, claimant: Claimant, shares: Sequence[Share]) -> int:
        limit, asked_at = self._binding.free, steady_seconds()
        # Not before: the statement before this one may have claimed from the same queue.
        shares = [share._replace(limit=room) for share in shares if (room := self._room(share.queue)) > 0]
        if limit < 1 or not shares:
            return 0
        dialect = self._binding.dialect
        verb = partial(claim, dialect=dialect, claimant=claimant, shares=shares, limit=limit)
        claimed = self._intake.take(claimant, lambda: self.line.once(verb))
        with self._lock:
            for pair in {(one.queue or INTERNAL_QUEUE, one.name) for one in claimed}:
                self._is_claimable(pair)
            if len(claimed) < limit:
                self._forget_exhausted(shares, claimed, asked_at)
        return len(claimed)

    def _forget_exhausted(self, shares: Sequence[Share], claimed: Sequence[ClaimedRun], asked_at: float) -> None:
        counts = Counter(one.queue for one in claimed)
        for share in shares:
            if counts[share.queue] >= share.limit:
                continue
            for pair in {(share.queue, one.name) for one in share.runnable}:
                if not counts[share.queue]:
                    self._note_vain(pair)
                if self._waiting.get(pair, inf) <= asked_at:
                    del self._waiting[pair]

    def _is_claimable(self, pair: Pair) -> None:
        self._vain.pop(pair, None)
        self._not_before.pop(pair, None)

    def _note_vain(self, pair: Pair) -> None:
        """Where nothing can be claimed again and again, it is of a version or an instance that is not here."""
        self._vain[pair] += 1
        if self._vain[pair] >= _VAIN_LOOKS:
            self._not_before[pair] = steady_seconds() + _VAIN_SECONDS


def _in_statements(shares: Sequence[Share]) -> Iterator[list[Share]]:
    """The shares in portions that a statement can hold, and no queue always first."""
    ordered = [
        share._replace(runnable=share.runnable[start : start + _KINDS])
        for share in random.sample(shares, len(shares))
        for start in range(0, len(share.runnable), _KINDS)
    ]
    portion: list[Share] = []
    for share in ordered:
        if portion and sum(len(each.runnable) for each in portion) + len(share.runnable) > _KINDS:
            yield portion
            portion = []
        portion.append(share)
    if portion:
        yield portion
