"""When a process of this host is dead beyond doubt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dbos_orm._services.process_identity import identify_process, is_provably_dead
from dbos_orm._store.executors import ObservedExecutor, ProcessIdentity
from tests.processes import eventually

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the proof needs /proc")


def observed(identity: ProcessIdentity, **changes: Any) -> ObservedExecutor:
    known = identity._replace(**changes)
    return ObservedExecutor("e", 0, timedelta(0), known.boot_id, known.pid_namespace, known.pid, known.process_started)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(["sleep", "600"], stdin=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def of_child(child: subprocess.Popen[str]) -> ProcessIdentity:
    started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    return identify_process()._replace(pid=child.pid, process_started=started)


def test_a_process_knows_itself() -> None:
    identity = identify_process()
    assert identity.pid == os.getpid()
    assert None not in identity
    assert not is_provably_dead(observed(identity), identity)


def test_a_running_process_is_not_dead(child: subprocess.Popen[str]) -> None:
    assert not is_provably_dead(observed(of_child(child)), identify_process())


def test_a_stopped_process_is_not_dead(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGSTOP)
    assert not is_provably_dead(observed(of_child(child)), identify_process())


def test_a_killed_process_is_dead(child: subprocess.Popen[str]) -> None:
    identity = of_child(child)
    child.kill()
    child.wait()
    assert is_provably_dead(observed(identity), identify_process())


def test_a_process_that_nobody_reaped_is_dead(child: subprocess.Popen[str]) -> None:
    identity = of_child(child)
    os.kill(child.pid, signal.SIGKILL)
    eventually(lambda: is_provably_dead(observed(identity), identify_process()))
    assert child.returncode is None


def test_another_process_under_the_same_number_is_no_sign_of_life(child: subprocess.Popen[str]) -> None:
    assert is_provably_dead(observed(of_child(child), process_started="1"), identify_process())


@pytest.mark.parametrize(
    "changes",
    [
        {"boot_id": "another boot, or another host"},
        {"pid_namespace": "pid:[1]"},
        {"boot_id": None},
        {"pid_namespace": None},
        {"pid": None},
        {"process_started": None},
    ],
)
def test_what_is_unknown_or_elsewhere_is_not_proved(
    child: subprocess.Popen[str], changes: dict[str, str | None]
) -> None:
    identity = of_child(child)
    child.kill()
    child.wait()
    assert not is_provably_dead(observed(identity, **changes), identify_process())


def test_an_observer_without_an_identity_proves_nothing(child: subprocess.Popen[str]) -> None:
    identity = of_child(child)
    child.kill()
    child.wait()
    unknown = identify_process()._replace(boot_id=None, pid_namespace=None)
    assert not is_provably_dead(observed(identity, boot_id=None, pid_namespace=None), unknown)
