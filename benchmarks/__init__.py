"""Programs that measure dbos_orm; each is run as ``python -m benchmarks.<name>``."""
