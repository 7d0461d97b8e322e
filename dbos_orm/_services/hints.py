"""How a launched process hears of others' work, and tells of its own: by what the database can."""

from __future__ import annotations

from dbos_orm._drivers.binding import Binding
from dbos_orm._services.listener import ListenerService, TellingService
from dbos_orm._services.service import Service
from dbos_orm._services.watcher import WatcherService


def hint_services(binding: Binding) -> list[Service]:
    """The services of a launch that are about hints; none where there is nothing to hear or to watch."""
    telling = binding.hints.telling
    if telling is not None:
        listener = ListenerService(binding, telling)
        return [listener] if binding.gateway.has_service_loop else [listener, TellingService(binding, telling)]
    return [WatcherService(binding)] if binding.dialect.can_watch else []
