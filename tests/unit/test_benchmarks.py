"""The benchmarks count what they say they count."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from benchmarks import report
from benchmarks.measurements import MEASUREMENTS, measurements
from benchmarks.queues import table as queue_table
from benchmarks.queues.measurements import measurements as queue_measurements
from benchmarks.queues.runs import Drain, Idle, Unit
from benchmarks.queues.task import Part, QueueTask
from benchmarks.relay import Answers
from benchmarks.rounds import Result
from benchmarks.tasks import Task


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (4 + len(body)).to_bytes(4) + body


# A row whose text looks like the end of two answers, and the end of two answers.
STREAM = (
    message(b"D", b"Z\0\0\0\5IZ\0\0\0\5I")
    + message(b"C", b"SELECT 1\0")
    + message(b"Z", b"I")
    + message(b"C", b"COMMIT\0")
    + message(b"Z", b"I")
)


@pytest.mark.parametrize("size", range(1, len(STREAM) + 1))
def test_answers_are_counted_however_the_stream_is_cut(size: int) -> None:
    answers = Answers()
    pieces = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert sum(answers.count_ready(piece) for piece in pieces) == 2


def test_a_task_is_the_same_on_the_other_side() -> None:
    for each in MEASUREMENTS:
        assert Task.from_json(each.task.to_json()) == each.task


def test_only_and_scale_choose_and_shrink() -> None:
    chosen = measurements(scale=0.01, only="serial, 1 ")
    assert [(each.name, each.task.workflows) for each in chosen] == [
        ("serial, 1 step", 3),
        ("serial, 1 transactional step", 3),
        ("SQLite, serial, 1 transactional step", 3),
    ]


def test_a_contender_that_did_not_run_has_no_ratio() -> None:
    rows = {
        "ran": {"we": Result(0.001, 0.0005, 1.2, 1.2), "they": Result(0.004, 0.002, 3.0, 17.0)},
        "failed": {"we": Result(0.001, 0.0005, None, None)},
    }
    printed = io.StringIO()
    console = Console(width=100, file=printed)
    console.print(report.speed(rows, ["we", "they"]))
    console.print(report.costs(rows, ["we", "they"]))
    lines = [line.split() for line in printed.getvalue().splitlines()]
    assert [line for line in lines if line[:1] == ["ran"]] == [
        ["ran", "1,000", "250", "4"],
        ["ran", "1.20", "17.00", "1.20", "3.00", "500", "2,000"],
    ]
    assert [line for line in lines if line[:1] == ["failed"]] == [
        ["failed", "1,000", "-", "-"],
        ["failed", "-", "-", "-", "-", "500", "-"],
    ]


def test_a_part_of_a_queue_is_the_same_on_the_other_side() -> None:
    task = QueueTask(Part.CONSUME, 3, is_async=True, url="postgresql://somewhere")
    assert QueueTask.from_json(task.to_json()) == task


def test_scale_shrinks_what_is_counted_of_queues() -> None:
    chosen = queue_measurements(scale=0.1, only="drain") + queue_measurements(scale=0.1, only="idle process")
    assert [each.kind for each in chosen] == [
        Drain(200),
        Drain(200, is_async=True),
        Drain(200, processes=2),
        Drain(200, processes=4),
        Drain(200, finished=1_000_000),
        Idle(),
    ]


def test_a_ratio_of_queues_says_how_many_times_as_good_we_are() -> None:
    rows: queue_table.Rows = {
        ("drained", Unit.RATE): {"we": [300.0, 100.0, 200.0], "they": [50.0]},
        ("waited", Unit.MILLISECONDS): {"we": [2.0], "they": [1000.0]},
    }
    printed = io.StringIO()
    Console(width=100, file=printed).print(queue_table.table(rows, ["we", "they", "others"]))
    lines = [line.split() for line in printed.getvalue().splitlines()]
    assert ["drained", "1/s", "200", "50", "-", "4", "-"] in lines
    assert ["waited", "ms", "2", "1,000", "-", "500", "-"] in lines
