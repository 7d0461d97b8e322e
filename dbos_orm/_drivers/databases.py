"""Which engines reach the application's own database, and which reach another."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from sqlalchemy.engine import Connection, Engine

from dbos_orm._dialects import Dialect


class Databases:
    """Tells databases apart by asking them; each engine is asked once.

    The application's own is asked first, over a connection of the library's: ``gateway.read(databases.learn_own)``,
    or ``await gateway.read_async(...)``, unless ``knows_own``.
    """

    def __init__(self, dialect: Dialect, engine: Engine) -> None:
        self._dialect = dialect
        self._engine = engine
        self._own: object = None
        self._identities: WeakKeyDictionary[Engine, object] = WeakKeyDictionary()

    @property
    def knows_own(self) -> bool:
        """Whether the application's own database was asked."""
        return self._own is not None

    def learn_own(self, connection: Connection) -> None:
        """Ask the application's own database."""
        self._own = self._dialect.identity(connection)

    def is_own(self, connection: Connection) -> bool:
        """Whether a connection of any engine reaches the application's own database, and its tables there.

        The first time for an engine it is asked, in the connection's own transaction.
        """
        engine = connection.engine
        if engine is self._engine:
            return True
        if connection.dialect.name != self._dialect.driver.name:
            return False
        assert self.knows_own, "the application's own database is asked first"
        found = self._identities.get(engine)
        if found is None:
            found = self._identities.setdefault(engine, self._dialect.identity(connection))
        return found == self._own
