"""Performs the effects of transactional steps in the calling thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dbos_orm._context import OpenTransaction
from dbos_orm._drivers import sessions
from dbos_orm._drivers.databases import Databases
from dbos_orm._drivers.sessions import SessionSource, as_source, source_of
from dbos_orm._flows import effects
from dbos_orm._flows.effects import Effect, Outcome, Unreachable
from dbos_orm._outcomes import Raised, Returned


class Sessions:
    """Opens, uses and closes the sessions of transactional steps."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases

    def performers(self) -> dict[type[Effect[Any]], Callable[[Any], Any]]:
        """The part of a driver's table that is performed here."""
        return {
            effects.Reach: self._reach,
            effects.Ask: self._ask,
            effects.OpenSession: self._open,
            effects.Flush: self._flush,
            effects.RecordIn: self._record_in,
            effects.Commit: self._commit,
            effects.Rollback: self._roll_back,
        }

    def close(self, transaction: OpenTransaction) -> None:
        """Roll back what is open, give the connection back, and the turn at writing."""
        self._close(source_of(transaction), transaction.session)

    def _reach(self, effect: effects.Reach) -> SessionSource | Unreachable:
        return self._databases.reach(effect.maker)

    def _ask(self, effect: effects.Ask) -> Outcome:
        return _outcome(lambda: self._databases.ask(as_source(effect.source), effect.verb))

    def _open(self, effect: effects.OpenSession) -> Outcome:
        source = as_source(effect.source)
        turn = source.request_turn()
        if turn is not None:
            try:
                turn.result()
            except BaseException:
                source.withdraw_turn(turn)
                raise
        session = None
        try:
            session = source.make()
            sessions.begin(session, source.dialect, effect.isolation_level, effect.statement_timeout)
        except BaseException as error:
            self._close(source, session)
            if not isinstance(error, Exception):
                raise
            return Raised(error)
        return Returned(OpenTransaction(session, source, effect.name))

    def _flush(self, effect: effects.Flush) -> Outcome:
        return _outcome(effect.transaction.session.flush)

    def _record_in(self, effect: effects.RecordIn) -> Outcome:
        session, dialect = effect.transaction.session, source_of(effect.transaction).dialect
        return _outcome(lambda: sessions.record(session, dialect, effect.entry))

    def _commit(self, effect: effects.Commit) -> Outcome:
        try:
            return _outcome(lambda: sessions.commit(effect.transaction.session))
        finally:
            self.close(effect.transaction)

    def _roll_back(self, effect: effects.Rollback) -> None:
        self.close(effect.transaction)

    def _close(self, source: SessionSource, session: Any) -> None:
        # Closing rolls back; if even that fails the connection is gone, and the transaction with it.
        try:
            if session is not None:
                _outcome(session.close)
        finally:
            source.release_turn()


def _outcome(call: Callable[[], Any]) -> Outcome:
    try:
        return Returned(call())
    except Exception as error:
        return Raised(error)
