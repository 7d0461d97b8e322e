"""Calls that are given up when their time is up: the caller goes on, and their outcome is dropped.

Code cannot be stopped from outside: a coroutine is cancelled where it awaits, and a thread is left alone. What a
call returns or raises behind its limit is dropped in both cases, so that its caller never gets the one or the
other by chance.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from dbos_orm._drivers.worker_threads import start_thread
from dbos_orm._flows.effects import Outcome
from dbos_orm._outcomes import Raised, Returned
from dbos_orm._time_limits import TimeLimit


def call_within(limit: TimeLimit, call: Callable[[], Any]) -> Outcome:
    """Call a function in a thread of its own, with the caller's context, and wait for it until the limit."""
    done = begin(call, f"dbos-step {limit.step}")
    try:
        return done.result(limit.left)
    except TimeoutError:
        return done.result() if done.done() else Raised(limit.error())
    finally:
        limit.give_up()


async def call_within_async(limit: TimeLimit, call: Callable[[], Any]) -> Outcome:
    """``call_within`` without blocking the loop; a caller who is cancelled gives the call up."""
    done = asyncio.wrap_future(begin(call, f"dbos-step {limit.step}"))
    try:
        await asyncio.wait([done], timeout=limit.left)
        return done.result() if done.done() else Raised(limit.error())
    finally:
        limit.give_up()


async def await_within(limit: TimeLimit, awaitable: Awaitable[Any]) -> Outcome:
    """Await something in the calling task, and cancel it where it awaits when the time is up.

    A cancellation of the task by somebody else stays what it is.
    """
    task = asyncio.current_task()
    assert task is not None
    others, is_late = task.cancelling(), False

    def cancel() -> None:
        nonlocal is_late
        is_late = True
        limit.give_up()
        task.cancel()

    timer = asyncio.get_running_loop().call_later(limit.left, cancel)
    try:
        outcome: Outcome = Returned(await awaitable)
    except BaseException as error:
        outcome = Raised(error)
    finally:
        timer.cancel()
        limit.give_up()
    if not is_late:
        return outcome
    is_cancelled = isinstance(outcome, Raised) and isinstance(outcome.error, asyncio.CancelledError)
    if task.uncancel() > others and is_cancelled:
        return outcome
    return Raised(limit.error())


def begin(call: Callable[[], Any], name: str) -> Future[Outcome]:
    """Call a function in a thread of its own, with the caller's context; gives what becomes of it."""
    done: Future[Outcome] = Future()
    done.set_running_or_notify_cancel()  # from here on nobody can cancel it, and its thread can always set it
    context = contextvars.copy_context()
    start_thread(lambda: done.set_result(context.run(outcome_of, call)), name)
    return done


def outcome_of(call: Callable[[], Any]) -> Outcome:
    """What a call comes to, as a value: a StopIteration could not be raised into a future."""
    try:
        return Returned(call())
    except BaseException as error:
        return Raised(error)
