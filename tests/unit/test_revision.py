"""The library's own list of revisions, and the scripts behind it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from dbos_orm import schema
from dbos_orm._store.revision import HEAD, REVISIONS, SchemaRevision


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(schema.script_location()))
    return ScriptDirectory.from_config(config)


def test_the_revisions_are_those_of_the_scripts() -> None:
    assert tuple(reversed([script.revision for script in scripts().walk_revisions()])) == REVISIONS


def test_the_head_is_that_of_the_scripts() -> None:
    assert scripts().get_current_head() == HEAD


def test_every_revision_can_be_undone() -> None:
    for script in scripts().walk_revisions():
        assert hasattr(script.module, "downgrade"), script.revision


def test_the_scripts_are_read_from_the_checkout_beside_the_package() -> None:
    assert schema.script_location() == Path(schema.__file__).parents[1] / "alembic"


def test_a_revision_is_current_behind_or_ahead() -> None:
    assert SchemaRevision(HEAD).is_current
    assert not SchemaRevision(None).is_current
    assert not SchemaRevision(None).is_ahead
    assert SchemaRevision("9999").is_ahead
    assert SchemaRevision("9999").command != SchemaRevision(None).command


def test_reading_the_revision_does_not_import_alembic() -> None:
    program = (
        "import sys, dbos_orm.models, dbos_orm._store.revision, dbos_orm._dialects._urls; "
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
