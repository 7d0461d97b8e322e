"""``dbos-orm worker``: real processes, real signals."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from textwrap import dedent
from typing import Literal

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from dbos_orm.models import WorkflowStatus
from tests.databases import TestDatabase
from tests.processes import ChildProcess, Processes, eventually

Colour = Literal["sync", "async"]

SHOP = """
    import os, sys, time
    from pathlib import Path
    from dbos_orm import DBOS, Config

    dbos = DBOS(os.environ["SHOP_URL"], name="shop", config=Config(tick=0.05))
    mail = dbos.queue("mail", concurrency=9)
    reports = dbos.queue("reports")

    def note(text):
        with Path("notes").open("a") as file:
            file.write(f"{text}\\n")

    @dbos.step
    def first(name):
        note(f"first {name} {os.getpid()}")

    @dbos.step
    def hold(name):
        note(f"hold {name} {os.getpid()}")
        while not Path("release").exists():
            time.sleep(0.01)
        note(f"released {name} {os.getpid()}")

    @dbos.workflow
    def held(name):
        first(name)
        hold(name)
        return name

    @dbos.workflow
    def quick(name):
        first(name)
        return name

    @dbos.scheduled("0 4 * * *")
    @dbos.workflow
    def nightly(slot, context): ...

    if __name__ == "__main__":
        queue, kind, *names = sys.argv[1:]
        for name in names:
            globals()[kind].options(queue=queue, workflow_id=name).start(name)
        dbos.shutdown()
"""

ASYNC_SHOP = """
    import asyncio, os, sys
    from pathlib import Path
    from dbos_orm import AsyncDBOS, Config

    dbos = AsyncDBOS(os.environ["SHOP_URL"], name="shop", config=Config(tick=0.05))
    mail = dbos.queue("mail", concurrency=9)
    reports = dbos.queue("reports")

    def note(text):
        with Path("notes").open("a") as file:
            file.write(f"{text}\\n")

    @dbos.step
    async def first(name):
        note(f"first {name} {os.getpid()}")

    @dbos.step
    async def hold(name):
        note(f"hold {name} {os.getpid()}")
        while not Path("release").exists():
            await asyncio.sleep(0.01)
        note(f"released {name} {os.getpid()}")

    @dbos.workflow
    async def held(name):
        await first(name)
        await hold(name)
        return name

    @dbos.workflow
    async def quick(name):
        await first(name)
        return name

    @dbos.scheduled("0 4 * * *")
    @dbos.workflow
    async def nightly(slot, context): ...

    async def main():
        queue, kind, *names = sys.argv[1:]
        for name in names:
            await globals()[kind].options(queue=queue, workflow_id=name).start(name)
        await dbos.shutdown()

    if __name__ == "__main__":
        asyncio.run(main())
"""


class Shop:
    """The folder of an application, its workers, and what its workflows have done."""

    def __init__(self, folder: Path, processes: Processes, database: TestDatabase, colour: Colour) -> None:
        self._folder = folder
        self._processes = processes
        self._database = database
        url = database.url if colour == "sync" else database.async_url
        self._environment = {"SHOP_URL": url.render_as_string(hide_password=False)}
        (folder / "shop.py").write_text(dedent(SHOP if colour == "sync" else ASYNC_SHOP))

    def worker(self, *options: str, ready: bool = True) -> ChildProcess:
        """Start the command, and wait until it is ready."""
        child = self._processes.start_module("dbos_orm", "worker", "shop:dbos", *options, environment=self._environment)
        if ready:
            child.wait_for_line("ready")
        return child

    def start(self, queue: str, kind: str, *names: str) -> None:
        """Start workflows in a process that launches nothing."""
        self._processes.start_module("shop", queue, kind, *names, environment=self._environment).succeed()

    def release(self) -> None:
        """Let go what ``hold`` holds."""
        (self._folder / "release").touch()

    def notes(self, what: str) -> list[list[str]]:
        """The words behind ``what`` of each note."""
        file = self._folder / "notes"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line.split()[1:] for line in lines if line.startswith(f"{what} ")]

    def states(self) -> dict[str, str]:
        """The state of every workflow."""
        engine = self._database.make_engine().execution_options(sqlite_deferred=True)
        with Session(engine) as session:
            rows = session.execute(select(WorkflowStatus.workflow_id, WorkflowStatus.status))
            return {workflow_id: str(status) for workflow_id, status in rows}


@pytest.fixture(params=["sync", "async"])
def shop(request: pytest.FixtureRequest, tmp_path: Path, processes: Processes, database: TestDatabase) -> Shop:
    return Shop(tmp_path, processes, database, request.param)


def test_a_worker_says_what_it_found_runs_what_waits_and_stops_on_sigterm(shop: Shop) -> None:
    worker = shop.worker()
    shop.start("mail", "quick", "a", "b")
    eventually(lambda: shop.states() == {"a": "SUCCESS", "b": "SUCCESS"})
    worker.interrupt(signal.SIGTERM)
    lines = worker.succeed()
    shown = "\n".join(lines)
    for expected in (
        "application  shop",
        "workflows    held",
        "queues       mail: 9 at a time",
        "             reports: no limits",
        "0 4 * * * (UTC) starts nightly, next ",
        "SIGTERM: no new work; 0 running, at most 30 s for them",
    ):
        assert expected in shown
    assert lines[-1] == "stopped"
    assert "Traceback" not in worker.errors


def test_what_runs_may_finish_and_nothing_new_is_begun(shop: Shop) -> None:
    worker = shop.worker("--concurrency", "1")
    shop.start("mail", "held", "a", "b")
    eventually(lambda: shop.notes("hold"))
    worker.interrupt(signal.SIGINT)
    worker.wait_for_line("SIGINT: no new work; 1 running")
    shop.start("mail", "quick", "c")
    shop.release()
    worker.succeed()
    running = [name for name, _ in shop.notes("hold")]
    assert [name for name, _ in shop.notes("released")] == running
    waiting = {"a", "b", "c"} - set(running)
    assert shop.states() == {running[0]: "SUCCESS", **dict.fromkeys(waiting, "ENQUEUED")}


def test_what_has_not_finished_in_time_is_handed_over(shop: Shop) -> None:
    worker = shop.worker("--grace", "0.2")
    shop.start("mail", "held", "a")
    eventually(lambda: shop.notes("hold"))
    worker.interrupt()
    worker.succeed()
    assert shop.states() == {"a": "ENQUEUED"}
    shop.release()
    other = shop.worker()
    eventually(lambda: shop.states() == {"a": "SUCCESS"})
    assert shop.notes("first") == [["a", str(worker.pid)]], "what was recorded is not run again"
    assert ["a", str(other.pid)] in shop.notes("released")


def test_a_second_signal_ends_at_once_and_others_go_on(shop: Shop) -> None:
    worker = shop.worker()
    shop.start("mail", "held", "a")
    eventually(lambda: shop.notes("hold"))
    worker.interrupt(signal.SIGTERM)
    worker.wait_for_line("SIGTERM")
    worker.interrupt(signal.SIGTERM)
    assert worker.wait() == 128 + signal.SIGTERM
    assert shop.states() == {"a": "PENDING"}
    shop.release()
    shop.worker()
    eventually(lambda: shop.states() == {"a": "SUCCESS"})


def test_workers_of_one_command_share_the_work(shop: Shop) -> None:
    names = [str(number) for number in range(40)]
    workers = [shop.worker("--concurrency", "2", ready=False) for _ in range(3)]
    for worker in workers:
        worker.wait_for_line("ready")
    shop.start("mail", "held", *names)
    eventually(lambda: len(shop.notes("hold")) == 6)
    assert set(Counter(pid for _, pid in shop.notes("hold")).values()) == {2}
    shop.release()
    eventually(lambda: set(shop.states().values()) == {"SUCCESS"})
    assert sorted(name for name, _ in shop.notes("first")) == sorted(names), "each was run once"
    for worker in workers:
        worker.interrupt()
    for worker in workers:
        worker.succeed()


def test_a_worker_serves_the_queues_that_it_is_given(shop: Shop) -> None:
    worker = shop.worker("--queue", "reports")
    assert not [line for line in worker.lines if "mail" in line]
    shop.start("mail", "quick", "letter")
    shop.start("reports", "quick", "report")
    eventually(lambda: shop.states()["report"] == "SUCCESS")
    assert shop.states()["letter"] == "ENQUEUED"
    worker.interrupt()
    worker.succeed()
