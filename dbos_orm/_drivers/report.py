"""What the log says about runs in the background, where nobody may be looking."""

from __future__ import annotations

from dbos_orm._context import Run, logger
from dbos_orm._flows.effects import Outcome
from dbos_orm._outcomes import Raised


def log_unheard(run: Run, error: BaseException) -> None:
    """Log the error of a task that a workflow opened, and never awaited."""
    extra = {"workflow_id": run.workflow_id, "executor_id": run.launch.executor_id}
    logger.warning(
        "workflow %s %r returned without awaiting a task that raised %r",
        run.name,
        run.workflow_id,
        error,
        exc_info=error,
        extra=extra,
    )


def report(run: Run, outcome: Outcome) -> None:
    """Log how a background run ended."""
    extra = {"workflow_id": run.workflow_id, "executor_id": run.launch.executor_id}
    if not isinstance(outcome, Raised):
        logger.debug("workflow %s %r returned", run.name, run.workflow_id, extra=extra)
    elif run.failure is not None:
        logger.error("workflow %s %r stopped here: %s", run.name, run.workflow_id, run.failure, extra=extra)
    elif outcome.error is run.stop:
        logger.info("workflow %s %r stopped here: %r", run.name, run.workflow_id, outcome.error, extra=extra)
    else:
        logger.warning(
            "workflow %s %r raised %r",
            run.name,
            run.workflow_id,
            outcome.error,
            exc_info=outcome.error,
            extra=extra,
        )
