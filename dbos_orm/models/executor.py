"""A process that runs workflows, and the signs of life that the others watch."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import BigInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from dbos_orm.models._base import Base
from dbos_orm.models._defaults import ServerInstant
from dbos_orm.models._storage import set_storage

__all__ = ["Executor"]


class Executor(Base):
    """One launch of one application. Alive while ``heartbeat`` changes within one ``lease``.

    The instants are for people. Others observe the counter by their own monotonic clocks; on the
    same host the boot ID, PID namespace, PID and start time of the process prove a death at once.
    """

    __tablename__ = "dbos_executor"

    executor_id: Mapped[str] = mapped_column(primary_key=True)
    application: Mapped[str]
    heartbeat: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    lease: Mapped[timedelta]
    hostname: Mapped[str | None]
    boot_id: Mapped[str | None]
    pid_namespace: Mapped[str | None]
    pid: Mapped[int | None]
    process_started: Mapped[str | None]
    library_version: Mapped[str | None]
    started_at: Mapped[datetime] = mapped_column(server_default=ServerInstant())
    renewed_at: Mapped[datetime] = mapped_column(server_default=ServerInstant())
    expired_at: Mapped[datetime | None]
    """When another process declared it dead; from then on it may not renew."""

    def __repr__(self) -> str:
        return f"<Executor {self.executor_id!r} of {self.application!r}>"


# Updated every few seconds for as long as the process lives: room for updates on its own page.
set_storage(Executor, fillfactor=50, autovacuum_vacuum_scale_factor=0)
