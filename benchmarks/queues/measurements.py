"""What is measured of queues."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.queues.runs import Claim, Drain, Enqueue, Idle, Latency

Kind = Drain | Latency | Enqueue | Claim | Idle


@dataclass(frozen=True)
class Measurement:
    """Rows of the table that begin with ``name``, in which ``--only`` looks."""

    name: str
    kind: Kind
    is_ours_alone: bool = False


MEASUREMENTS = (
    Measurement("queue, drain", Drain(2000)),
    Measurement("queue, drain, async", Drain(2000, is_async=True)),
    Measurement("queue, drain, 2 processes", Drain(2000, processes=2)),
    Measurement("queue, drain, 4 processes", Drain(2000, processes=4)),
    Measurement("queue, idle, own process", Latency(105, is_other_process=False)),
    Measurement("queue, idle, other process", Latency(105, is_other_process=True)),
    Measurement("queue, start one by one", Enqueue(1000, is_one_transaction=False)),
    Measurement("queue, start in one transaction", Enqueue(10000, is_one_transaction=True)),
    Measurement("queue, round trips of an idle process", Idle()),
    Measurement("queue, drain among 1,000,000 finished", Drain(2000, finished=1_000_000), is_ours_alone=True),
    *(
        Measurement(f"queue, claim of 20, {finished:,} finished, {waiting:,} wait", Claim(50, finished, waiting), True)
        for finished, waiting in ((10, 2_000), (10_000, 2_000), (1_000_000, 2_000), (10_000, 100_000))
    ),
)


def measurements(*, scale: float, only: str) -> list[Measurement]:
    """Those with ``only`` in their name, with ``scale`` times the usual number."""
    return [_scaled(each, scale) for each in MEASUREMENTS if only in each.name]


def _scaled(measurement: Measurement, scale: float) -> Measurement:
    kind = measurement.kind
    if isinstance(kind, Idle):
        return measurement
    return replace(measurement, kind=replace(kind, count=max(10, round(kind.count * scale))))
