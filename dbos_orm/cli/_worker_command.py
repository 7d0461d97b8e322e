"""``dbos-orm worker``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Annotated

import typer

from dbos_orm._store.queues import QueueInfo
from dbos_orm._store.schedules import StoredSchedule
from dbos_orm._summary import LaunchSummary
from dbos_orm.cli._loading import import_module, load_application
from dbos_orm.cli._output import say
from dbos_orm.cli._worker import Worker
from dbos_orm.config import seconds
from dbos_orm.errors import ConfigurationError

__all__ = ["register"]

_MOST_NAMES = 20


def register(application: typer.Typer) -> None:
    """Add the command that executes workflows."""
    application.command()(worker)


def worker(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:NAME", help="The application, for example shop.workflows:dbos.")
    ],
    queue: Annotated[
        list[str] | None,
        typer.Option(help="Take work only from this queue; may be given several times. Default: all."),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Workflows at a time in this process. Default: as the Config says.")
    ] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="Import this module, too; may be given several times."),
    ] = None,
    grace: Annotated[float, typer.Option(help="Seconds that running workflows have to finish after SIGTERM.")] = 30.0,
) -> None:
    """Execute the workflows of an application until SIGTERM or Ctrl-C; as many processes as you like may do so."""
    if seconds(grace, field="--grace") < 0:
        raise ConfigurationError("--grace", grace, "zero or more seconds", "leave it out for 30")
    # Of a program that has not set up its logs otherwise, warnings are seen with their time.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    found = load_application(target)
    for module in imports or ():
        import_module(module)
    if concurrency is not None:
        found.run_at_most(concurrency)

    def began(summary: LaunchSummary) -> None:
        _show(summary, queue)

    def ending(signal_name: str, running: int) -> None:
        say(f"{signal_name}: no new work; {running} running, at most {grace:g} s for them. Again to end at once.")

    Worker(queue or None, grace, began=began, ending=ending).run(found)
    say("stopped")


def _show(summary: LaunchSummary, served: list[str] | None) -> None:
    say(f"application  {summary.application}", style="bold")
    say(f"database     {summary.database}")
    say(f"executor     {summary.executor_id} (process {os.getpid()}), {summary.at_once} workflows at a time")
    _list("workflows", summary.workflows)
    _list("queues", (_queue(one) for one in summary.queues if not served or one.name in served))
    _list("schedules", map(_schedule, summary.schedules))
    if summary.stranded:
        waiting = (f"{count} of {name}" for name, count in summary.stranded.items())
        _list("stranded", [*waiting, "(stored workflows that wait for code which is not here)"], style="yellow")
    say("ready", style="green")


def _list(title: str, lines: Iterable[str], *, style: str = "") -> None:
    shown = list(lines) or ["none"]
    if len(shown) > _MOST_NAMES:
        shown[_MOST_NAMES:] = [f"and {len(shown) - _MOST_NAMES} more"]
    for number, line in enumerate(shown):
        say(f"{'' if number else title:<13}{line}", style=style)


def _queue(queue: QueueInfo) -> str:
    limits = [
        f"{queue.concurrency} at a time" if queue.concurrency is not None else "",
        f"{queue.worker_concurrency} per process" if queue.worker_concurrency is not None else "",
        _rate(queue),
        "each per partition" if queue.partitioned else "",
        "paused" if queue.paused else "",
        f"{queue.depth} waiting" if queue.depth else "",
    ]
    return f"{queue.name}: {', '.join(filter(None, limits)) or 'no limits'}"


def _rate(queue: QueueInfo) -> str:
    if queue.rate_limit is None:
        return ""
    period = queue.rate_limit.period
    return f"{queue.rate_limit.limit} starts in {seconds(period):g} s"


def _schedule(schedule: StoredSchedule) -> str:
    if schedule.paused:
        state = "paused"
    elif schedule.next_fire_at is None:
        state = "nothing comes any more"
    else:
        state = f"next {schedule.next_fire_at:%Y-%m-%d %H:%M:%S %Z}"
    when = schedule.expression or schedule.trigger
    return f"{schedule.name}: {when} ({schedule.timezone}) starts {schedule.workflow_name}, {state}"
