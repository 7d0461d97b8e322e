"""What an error of the driver means for whoever tried to write."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from dbos_orm._clock import Clock
from dbos_orm._dialects import Fault, dialect_of
from dbos_orm.config import Config


@pytest.mark.parametrize(
    "refusal",
    [
        "the database system is starting up",
        "the database system is shutting down",
        "the database system is in recovery mode",
        "the database system is not yet accepting connections\nDETAIL:  Consistent recovery state has not been yet",
        "the database system is not accepting connections\nDETAIL:  Hot standby mode is disabled.",
        "sorry, too many clients already",
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
        # In the server's own language, of which we know no word.
        "das Datenbanksystem startet",
    ],
)
def test_a_server_that_refuses_for_the_moment_is_waited_for(refusal: str) -> None:
    assert fault_of(refusal) is Fault.DISCONNECTED


@pytest.mark.parametrize(
    "refusal",
    [
        'password authentication failed for user "shop"',
        'database "shpo" does not exist',
        'role "shop" does not exist',
        'no pg_hba.conf entry for host "10.0.0.1", user "shop", database "shop", no encryption',
    ],
)
def test_a_server_that_refuses_for_good_is_not_waited_for(refusal: str) -> None:
    assert fault_of(refusal) is Fault.REJECTED


def fault_of(refusal: str) -> Fault:
    engine = create_engine("postgresql+psycopg2://localhost/shop")
    cause = Exception(f'connection to server at "localhost", port 5432 failed: FATAL:  {refusal}\n')
    return dialect_of(engine, Clock(), Config()).fault(OperationalError(None, None, cause))
