"""Lives of a process that dies at every effect of its workflows, one after another, and who compares their ends."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from dbos_orm import DBOS, AsyncDBOS, Config
from dbos_orm._services.service import Service
from dbos_orm.models import WorkflowStatus
from dbos_orm.serialization import Codec
from tests.databases import TestDatabase
from tests.dropped_workflows import Base, Interruption, Journal
from tests.dropping import Dropped, Fate, Fates, Trouble, When, async_process, current_fate, process
from tests.flow_sites import Site, unseen
from tests.processes import PATIENCE, eventually, eventually_async
from tests.stories import recorded_attempts, root_of, stories, told_of_error

CALM = "calm"
SETTLED = 4 * PATIENCE
"""Hundreds of workflows are recovered at once; on a busy machine they need longer than one."""
CONFIG = Config(lease=600, heartbeat=300, tick=0.1, worker_threads=16, retry_unreadable=0.2, application_version="1")
TIMED = {"timed_out_child"}
"""How far these get before their time is up is not decided by the code."""
IN_TROUBLE = "mixture"


class Trial:
    """Three lives of a process: in the first all effects are dropped, in the second some again."""

    def __init__(
        self,
        database: TestDatabase,
        scenarios: Iterable[str],
        *,
        elsewhere: TestDatabase | None = None,
        at_least: int = 200,
    ) -> None:
        self.journal = Journal()
        self.drops: Counter[str] = Counter()
        self.outcomes: dict[str, set[str]] = {}
        self._plots: list[tuple[str, Trouble | None]] = [(name, None) for name in scenarios if name != IN_TROUBLE]
        self._plots += [(IN_TROUBLE, trouble) for trouble in Trouble]
        self._at_least = at_least
        # A reader that waited for the one writer would block the loop on which that writer goes on.
        self._engines = [
            one.make_engine(execution_options={"sqlite_deferred": True}) for one in (database, elsewhere) if one
        ]
        for engine in self._engines:
            Base.metadata.create_all(engine)
        self._engine = self._engines[0]
        self._random = random.Random(0)
        self._lengths: dict[str, int] = {}
        self._recorded: dict[tuple[str, str, int], int] = {}

    def first_fates(self, fates: Fates) -> Iterator[tuple[str, str]]:
        """Scenario and root: for each effect a fate on each side, until the scenario has no more effects."""
        for scenario, trouble in self._plots:
            name = scenario if trouble is None else f"{scenario}.{trouble.value}"
            fates.add(f"{name}.{CALM}", Fate())
            yield scenario, f"{name}.{CALM}"
            # In trouble flows take many more effects; to the database, after one is before the next.
            for when in When if trouble is None else [When.AFTER]:
                for at in itertools.count(1):
                    root = f"{name}.{when}{at}"
                    fate = fates.add(root, Fate(at, when, trouble))
                    yield scenario, root
                    fate.wait_until_quiet()
                    if not fate.is_over:
                        break
                    self._lengths[scenario] = at

    def second_fates(self) -> Fates:
        """Fates for the recoveries of a sample: they are dropped once more, anywhere."""
        fates = Fates()
        for root in self._random.sample(sorted(self.drops), len(self.drops) // 4):
            at = self._random.randint(1, self._lengths[scenario_of(root)])
            fates.add(root, Fate(at, self._random.choice(list(When))))
        return fates

    def is_settled(self, fates: Fates) -> bool:
        """Whether every workflow has ended, except those that were dropped."""
        with Session(self._engine) as session:
            live = session.scalars(select(WorkflowStatus.workflow_id).where(WorkflowStatus.is_live))
            return {root_of(workflow_id) for workflow_id in live} <= fates.fulfilled()

    def end_life(self, fates: Fates) -> None:
        """Note who died, and what is recorded and must not run again."""
        self.drops.update(fates.fulfilled())
        for key in recorded_attempts(self._engine):
            self._recorded.setdefault(key, self.journal.begun[key])

    def note(self, root: str, outcome: str) -> None:
        """Note what somebody got who asked for a workflow."""
        self.outcomes.setdefault(root, set()).add(outcome.replace(root, "<root>"))

    def verify(self, codec: Codec) -> None:
        """All came to what the undisturbed one came to, and did no more for it than they had to."""
        assert len(self.drops) > self._at_least
        told = stories(self._engines, codec)
        assert set(told) == set(self.outcomes) > set(self.drops)
        wrong: dict[object, object] = {}
        for root, story in told.items():
            calm = f"{root.rpartition('.')[0]}.{CALM}"
            if scenario_of(root) in TIMED:
                assert story.workflows["<root>"] == told[calm].workflows["<root>"]
            elif differences := story.differences(told[calm]):
                wrong[root] = differences
            if self.outcomes[root] != self.outcomes[calm]:
                wrong[root, "outcomes"] = self.outcomes[root]
        for key, count in self.journal.begun.items():
            if count > 1 + self.drops[root_of(key[0])] or count != self._recorded.get(key, count):
                wrong[key, "begun"] = count, self._recorded.get(key)
        begun = {key[:2] for key in self.journal.begun}
        for root, story in told.items():
            for (name, path), (_, kind, *_) in story.steps.items():
                if kind == "step" and (name.replace("<root>", root), path) not in begun:
                    wrong[root, path] = "recorded without having run"
        assert not wrong, wrong


def scenario_of(root: str) -> str:
    return root.partition(".")[0]


# -- sync ----------------------------------------------------------------------------------------


def ask(trial: Trial, tick: Service, workflow: Any, root: str, fate: Fate | None) -> None:
    """Call the workflow under a given ID, as a client that tries again until it knows the outcome."""
    token = current_fate.set(fate)
    try:
        try:
            value = workflow.options(workflow_id=root)()
        except Interruption:
            tick.wake()
            value = workflow.handle(root).result()
        trial.note(root, f"returned {value!r}")
    except Dropped:
        return
    except Exception as error:
        trial.note(root, told_of_error(error))
    finally:
        current_fate.reset(token)


def live(trial: Trial, engine: Engine, register: Callable[[DBOS, Journal], Mapping[str, Any]]) -> set[Site]:
    """The lives of a trial, one after another; gives the places in the flows from which no effect came."""
    fates = Fates()
    seen = set()
    dbos = DBOS(name="shop", config=CONFIG)
    workflows = register(dbos, trial.journal)
    with process(dbos, engine, fates) as tick:
        for scenario, root in trial.first_fates(fates):
            ask(trial, tick, workflows[scenario], root, fates.of(root))
        eventually(partial(trial.is_settled, fates), timeout=SETTLED)
        fates.wait_until_quiet()
        trial.end_life(fates)
        seen |= fates.sites
    for following in (trial.second_fates(), Fates()):
        dbos = DBOS(name="shop", config=CONFIG)
        workflows = register(dbos, trial.journal)
        with process(dbos, engine, following) as tick:
            eventually(partial(trial.is_settled, following), timeout=SETTLED)
            for root in list(trial.drops):
                ask(trial, tick, workflows[scenario_of(root)], root, following.of(root))
            eventually(partial(trial.is_settled, following), timeout=SETTLED)
            following.wait_until_quiet()
            trial.end_life(following)
            seen |= following.sites
    trial.verify(dbos._runtime.application.codec)
    return unseen(seen)


# -- async ---------------------------------------------------------------------------------------


async def ask_async(trial: Trial, tick: Service, workflow: Any, root: str, fate: Fate | None) -> None:
    """``ask`` for coroutines."""
    token = current_fate.set(fate)
    try:
        try:
            value = await workflow.options(workflow_id=root)()
        except Interruption:
            tick.wake()
            value = await workflow.handle(root).result()
        trial.note(root, f"returned {value!r}")
    except Dropped:
        return
    except Exception as error:
        trial.note(root, told_of_error(error))
    finally:
        current_fate.reset(token)


async def live_async(
    trial: Trial, engine: AsyncEngine, register: Callable[[AsyncDBOS, Journal], Mapping[str, Any]]
) -> None:
    """``live`` for coroutines."""
    fates = Fates()
    dbos = AsyncDBOS(name="shop", config=CONFIG)
    workflows = register(dbos, trial.journal)
    async with async_process(dbos, engine, fates) as tick:
        for scenario, root in trial.first_fates(fates):
            await ask_async(trial, tick, workflows[scenario], root, fates.of(root))
            await fates.wait_until_quiet_async(root)
        await eventually_async(partial(trial.is_settled, fates), timeout=SETTLED)
        await fates.wait_until_quiet_async()
        trial.end_life(fates)
    for following in (trial.second_fates(), Fates()):
        dbos = AsyncDBOS(name="shop", config=CONFIG)
        workflows = register(dbos, trial.journal)
        async with async_process(dbos, engine, following) as tick:
            await eventually_async(partial(trial.is_settled, following), timeout=SETTLED)
            for root in list(trial.drops):
                await ask_async(trial, tick, workflows[scenario_of(root)], root, following.of(root))
            await eventually_async(partial(trial.is_settled, following), timeout=SETTLED)
            await following.wait_until_quiet_async()
            trial.end_life(following)
    trial.verify(dbos._runtime.application.codec)
