"""What names this process on its host, and the proof that another one is dead."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final

from dbos_orm._store.executors import ObservedExecutor, ProcessIdentity

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_START_FIELD: Final = 19
"""Of /proc/PID/stat behind the name in parentheses: ``starttime`` (proc(5), field 22)."""


def identify_process() -> ProcessIdentity:
    """The identity of the calling process; without Linux's /proc there is no proof, only the lease."""
    return ProcessIdentity(
        hostname=platform.node(),
        boot_id=_read(_BOOT_ID),
        pid_namespace=_pid_namespace(),
        pid=os.getpid(),
        process_started=_started(os.getpid()),
    )


def is_provably_dead(observed: ObservedExecutor, identity: ProcessIdentity) -> bool:
    """Whether another executor ran on this host, in this PID namespace, and its process is gone.

    A zombie is gone: it runs no code any more. A PID that was given to another process shows another
    start time. Where anything is unknown, there is no proof.
    """
    known = (identity.boot_id, identity.pid_namespace, observed.pid, observed.process_started)
    if None in known or (observed.boot_id, observed.pid_namespace) != (
        identity.boot_id,
        identity.pid_namespace,
    ):
        return False
    assert observed.pid is not None
    try:
        # Unlike a look into /proc, the answer does not depend on who may see whose processes.
        os.kill(observed.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    state, started = _stat(observed.pid)
    if started is None:
        return False
    return state in ("Z", "X") or started != observed.process_started


def _started(pid: int) -> str | None:
    return _stat(pid)[1]


def _stat(pid: int) -> tuple[str | None, str | None]:
    """State and start time of a process, None where it cannot be read."""
    text = _read(Path(f"/proc/{pid}/stat"))
    if text is None:
        return None, None
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[_START_FIELD]


def _pid_namespace() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
