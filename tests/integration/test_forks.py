"""What a fork leaves of an application, in the parent and in the child."""

from __future__ import annotations

import pytest

from tests.databases import TestDatabase
from tests.processes import Processes

FORKER = """
    import os, sys
    from dbos_orm import DBOS, Config
    from dbos_orm.errors import ForkedProcessError, NotLaunchedError
    from tests.engines import engine_for

    dbos = DBOS(name="shop", config=Config(tick=0.05))

    @dbos.step
    def who():
        return os.getpid()

    @dbos.workflow
    def work():
        return [who(), who()]

    def in_child(body):
        child = os.fork()
        if child == 0:
            try:
                body()
            except BaseException as error:
                print(f"child: {error!r}", flush=True)
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, "the child failed"

    def start_in_child():
        handle = work.options(workflow_id=f"child {sys.argv[2]}").start()
        print("child started", handle.created, flush=True)

    def call_in_child():
        try:
            work()
        except (ForkedProcessError, NotLaunchedError) as error:
            print("child refused", type(error).__name__, flush=True)

    def launch_in_child():
        dbos.launch(engine)
        print("child ran", work() == [os.getpid()] * 2, flush=True)
        dbos.shutdown()

    engine = engine_for(sys.argv[1])
    dbos.bind(engine)
    if sys.argv[2] == "bound":
        work.options(workflow_id="parent").start()
        in_child(start_in_child)
        in_child(launch_in_child)
        dbos.launch()
    else:
        dbos.launch()
        assert work() == [os.getpid()] * 2
        in_child(start_in_child)
        in_child(call_in_child)
        assert work() == [os.getpid()] * 2, "the parent goes on"
    print("parent has", dbos.handle(f"child {sys.argv[2]}").result(30) != [], flush=True)
    dbos.shutdown()
"""


@pytest.mark.parametrize("stage", ["bound", "launched"])
def test_a_fork_leaves_the_parent_as_it_was_and_the_child_can_start_workflows(
    database: TestDatabase, processes: Processes, stage: str
) -> None:
    url = database.url.render_as_string(hide_password=False)
    lines = processes.start_script(FORKER, url, stage).succeed()
    assert "child started True" in lines
    assert "parent has True" in lines
    if stage == "bound":
        assert "child ran True" in lines
    else:
        assert "child refused ForkedProcessError" in lines
