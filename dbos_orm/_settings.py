"""What a decorator says of every call of a step or transaction, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import sessionmaker

from dbos_orm._retry import Retry
from dbos_orm.config import Duration, require_count, require_text, seconds
from dbos_orm.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class StepSettings:
    """How a step is tried. ``timeout`` limits one attempt."""

    retry: Retry | None = None
    timeout: timedelta | None = None

    @property
    def max_attempts(self) -> int:
        """How often it is tried at most."""
        return 1 if self.retry is None else self.retry.max_attempts


class StepOptions(TypedDict, total=False):
    """What may be said of one call of a step, by ``step.options(...)``."""

    retry: Retry | None
    """How a failed attempt is repeated; None: not at all."""
    timeout: Duration | None
    """How long one attempt may take; None: as long as it likes."""


@dataclass(frozen=True, slots=True)
class TransactionSettings:
    """How a transaction is made. ``sessionmaker``: of another database, or with other options, than the binding's."""

    max_attempts: int
    isolation_level: str | None = None
    sessionmaker: sessionmaker[Any] | async_sessionmaker[Any] | None = None
    statement_timeout: timedelta | None = None


def step_settings(retry: object = None, timeout: Duration | None = None) -> StepSettings:
    """The settings of a step.

    Raises:
        ConfigurationError: one of them cannot work.
    """
    if retry is not None and not isinstance(retry, Retry):
        raise ConfigurationError("retry", retry, "a Retry", "write retry=Retry(max_attempts=5)")
    if retry is not None:
        retry.validate()
    return StepSettings(retry, _positive("timeout", timeout))


def with_options(settings: StepSettings, options: Mapping[str, Any]) -> StepSettings:
    """The settings with what the options say; raises as ``step_settings``."""
    for name, value in options.items():
        if name not in StepOptions.__annotations__:
            expected = f"an option of {sorted(StepOptions.__annotations__)}"
            raise ConfigurationError(name, value, expected, "leave it out")
    said = {"retry": settings.retry, "timeout": settings.timeout, **options}
    return step_settings(said["retry"], said["timeout"])


def transaction_settings(
    *,
    max_attempts: int,
    isolation_level: str | None = None,
    maker: object = None,
    statement_timeout: Duration | None = None,
    is_async: bool,
) -> TransactionSettings:
    """The settings of a transaction; raises as ``step_settings``."""
    if isolation_level is not None:
        require_text("isolation_level", isolation_level)
        if isolation_level.replace("_", " ").strip().upper() == "AUTOCOMMIT":
            raise ConfigurationError(
                "isolation_level",
                isolation_level,
                "a level that has transactions",
                "make it a @dbos.step with a connection of its own",
            )
    require_count("max_attempts", max_attempts)
    if maker is not None and not isinstance(maker, async_sessionmaker if is_async else sessionmaker):
        kind = "async_sessionmaker" if is_async else "sessionmaker"
        raise ConfigurationError("sessionmaker", maker, f"a {kind}", f"make it with {kind}(engine)")
    return TransactionSettings(
        max_attempts,
        isolation_level,
        maker,
        _positive("statement_timeout", statement_timeout),
    )


def _positive(field: str, duration: Duration | None) -> timedelta | None:
    if duration is None:
        return None
    length = seconds(duration, field=field)
    if length <= 0:
        raise ConfigurationError(field, duration, "more than zero", "leave it out for no limit")
    return timedelta(seconds=length)
