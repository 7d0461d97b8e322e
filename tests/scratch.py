"""Folders for throw-away data, in memory where the machine has room for it."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "dbos_orm_test_"
MEMORY = Path("/dev/shm")
ROOM_IN_MEMORY = 2 * 1024**3


class ScratchFolder:
    """A new folder that every user can enter, and that is gone after ``remove()``.

    A test run that is killed cannot remove its folders; the next one does. A folder belongs to a
    living run for as long as the lock on its file ``lock`` is held, and the kernel drops that lock
    with the process. A PostgreSQL server whose data are removed ends by itself within a minute.
    """

    def __init__(self, *, on_disk: bool = False) -> None:
        parent = MEMORY if not on_disk and _has_room(MEMORY) else Path(tempfile.gettempdir())
        _remove_abandoned(parent)
        # Not pytest's tmp_path: its folders are 0700, and as root the server runs as another user.
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        # Named only once it is locked: a run that starts at this moment must not find it free.
        unnamed = self.path / "lock.new"
        self._lock = os.open(unnamed, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unnamed.rename(self.path / "lock")
        self.path.chmod(0o755)

    def remove(self) -> None:
        """Remove the folder with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _has_room(folder: Path) -> bool:
    try:
        return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > ROOM_IN_MEMORY
    except OSError:
        return False


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        # Another user's folder, a living run's, or one that a run makes or removes just now.
        with suppress(OSError):
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
