"""The tables of the reports."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dbos_orm.models import Instant


class Base(DeclarativeBase):
    """What the reports are made of."""


class Report(Base):
    """The report of one slot of the schedule. The slot is the key: there is no second report of it."""

    __tablename__ = "report"
    __table_args__ = (CheckConstraint("in_daylight BETWEEN 0 AND airports", name="in_daylight_of_all"),)

    slot: Mapped[datetime] = mapped_column(Instant, primary_key=True)
    airports: Mapped[int]
    in_daylight: Mapped[int]
    lines: Mapped[list[ReportLine]] = relationship(order_by="ReportLine.country", cascade="all, delete-orphan")


class ReportLine(Base):
    """What a report says of one country."""

    __tablename__ = "report_line"

    slot: Mapped[datetime] = mapped_column(Instant, ForeignKey("report.slot"), primary_key=True)
    country: Mapped[str] = mapped_column(primary_key=True)
    airports: Mapped[int]
    in_daylight: Mapped[int]
