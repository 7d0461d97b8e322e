"""Processes that keep books until they are killed or stopped: ``python -m tests.acceptance.worker ...``.

``forks``: for every line of its input, a JSON object, a copy of itself that does what it says: it dies at an
effect, or starts workflows until it is killed. What all of them need is imported once.
``hold``: runs what its input says, and holds it where a run asks for it. ``hold_commit``: holds a commit.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy.exc import DBAPIError

from dbos_orm._flows.effects import Commit, Effect, Write, WriteResult
from dbos_orm._outcomes import Raised
from dbos_orm._store.entries import StepEntry
from tests.acceptance.books import SHORT, Colour, Keeper, World
from tests.acceptance.branches import branch
from tests.acceptance.keepers import keeper

MOST_AT_ONCE = 16


def say(line: str) -> None:
    """Write a line for the test, at once and in one piece."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def kind_of(effect: Effect[Any]) -> str:
    """The kind of an effect; of a write also what is written."""
    if not isinstance(effect, Write):
        return type(effect).__name__
    entry = effect.entry
    what = type(entry).__name__
    if isinstance(entry, StepEntry) and entry.kind in ("child", "sleep"):
        what = entry.kind
    return f"Write {what}"


class Death:
    """Kills this process before or after the first effect of one kind.

    Two kinds come only after trouble, which this class then feigns: a batch that met a conflict, a COMMIT
    without an answer.
    """

    def __init__(self, perform: Callable[[Effect[Any]], Any], kind: str, moment: str) -> None:
        self._perform = perform
        self._kind = kind
        self._moment = moment
        self._is_near = False

    def perform(self, effect: Effect[Any]) -> Any:
        is_it = self._meet(effect)
        if self._feigned_before(effect):
            return WriteResult.STALLED
        result = self._perform(effect)
        return self._then(effect, result, is_it=is_it)

    async def perform_async(self, effect: Effect[Any]) -> Any:
        is_it = self._meet(effect)
        if self._feigned_before(effect):
            return WriteResult.STALLED
        result = await self._perform(effect)
        return self._then(effect, result, is_it=is_it)

    def _meet(self, effect: Effect[Any]) -> bool:
        is_it = kind_of(effect) == self._kind and not self._is_near
        if is_it:
            self._is_near = True
            if self._moment == "before":
                die()
        return is_it

    def _feigned_before(self, effect: Effect[Any]) -> bool:
        return self._kind == "WriteAlone" and isinstance(effect, Write) and isinstance(effect.entry, StepEntry)

    def _then(self, effect: Effect[Any], result: Any, *, is_it: bool) -> Any:
        if is_it:
            die()
        if self._kind in ("Probe", "Ask") and isinstance(effect, Commit):
            return Raised(DBAPIError("COMMIT", None, Exception("no answer"), connection_invalidated=True))
        return result


def die() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def fork_at_every_line() -> None:
    """Start a process for every line, wait for its end, and say how it ended: -9 is death."""
    tasks: dict[str, Callable[..., None]] = {"die": run_until_death, "load": load}
    say("ready")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            task = json.loads(line)
            tasks[task.pop("task")](**task)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        say(f"ended {os.waitstatus_to_exitcode(status)}")


def run_until_death(
    colour: Colour, url: str, world: str, workflow_id: str, kind: str, moment: str, other: str | None = None
) -> None:
    """Run ``keep``, or with a second database ``both``, and die on the way."""
    place = World(Path(world))
    books = keeper(colour, url, place) if other is None else branch(colour, url, other, place)
    books.bind()
    death = Death(books.driver.perform, kind, moment)
    is_async = inspect.iscoroutinefunction(books.driver.perform)
    with mock.patch.object(books.driver, "perform", death.perform_async if is_async else death.perform):
        books.launch()
        books.call("keep" if other is None else "both", workflow_id, workflow_id)


def load(colour: Colour, url: str, world: str, prefix: str) -> None:
    """Start workflows without end, and say the ID of each that is stored; so many run at once at most."""
    slots = threading.Semaphore(MOST_AT_ONCE)
    parent = os.getppid()

    def give_back(workflow_id: str) -> None:
        books.result(workflow_id)
        slots.release()

    with keeper(colour, url, World(Path(world))) as books:
        say(f"loading {os.getpid()}")
        for number in range(100_000):
            slots.acquire()
            if os.getppid() != parent:
                die()
            workflow_id = f"{prefix}-{number}"
            books.start("brief", workflow_id, workflow_id)
            say(f"stored {workflow_id}")
            threading.Thread(target=give_back, args=[workflow_id], daemon=True).start()


def hold(colour: Colour, url: str, world: str) -> None:
    """Run the workflows that the input names, one after another; ``go`` lets a held one go on."""
    gate = threading.Event()

    def at(place: str) -> None:
        say(f"at {place}")
        gate.wait()

    with keeper(colour, url, World(Path(world)), at=at, config=SHORT) as books:
        say(f"launched {books.executor_id}")
        for line in sys.stdin:
            command, *arguments = line.split()
            if command == "go":
                gate.set()
            elif command == "runs":
                say(f"runs {books.runs}")
            elif command == "name":
                say(f"name {books.executor_id}")
            else:
                threading.Thread(target=_call_and_say, args=[books, command, *arguments], daemon=True).start()


def hold_commit(colour: Colour, url: str, other: str, world: str) -> None:
    """Run ``note``, and hold it just before its commit in the second database until there is a line of input."""
    books = branch(colour, url, other, World(Path(world)), process=os.getpid(), config=SHORT)
    books.bind()
    perform = books.driver.perform

    def hold() -> None:
        say("at the commit")
        sys.stdin.readline()

    def held(effect: Effect[Any]) -> Any:
        if isinstance(effect, Commit):
            hold()
        return perform(effect)

    async def held_async(effect: Effect[Any]) -> Any:
        if isinstance(effect, Commit):
            await asyncio.to_thread(hold)
        return await perform(effect)

    is_async = inspect.iscoroutinefunction(perform)
    with mock.patch.object(books.driver, "perform", held_async if is_async else held):
        books.launch()
        _call_and_say(books, "note", "run")
    books.close()


def _call_and_say(books: Keeper, workflow: str, workflow_id: str, *arguments: str) -> None:
    try:
        say(f"returned {workflow_id} {books.call(workflow, workflow_id, *arguments)}")
    except BaseException as error:
        say(f"raised {workflow_id} {error!r}")


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    commands: dict[str, Callable[..., None]] = {"forks": fork_at_every_line, "hold": hold, "hold_commit": hold_commit}
    commands[command](*rest)
