"""Programs that show dbos_orm at work; each is run as ``python -m examples.<name>``."""
