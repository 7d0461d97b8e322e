"""Import 28,000 airports into ORM tables, durably.

    python -m examples.airports

reads the data set of the package ``airportsdata`` (every airport and landing strip in the world that has a code) and
writes it into three tables, 500 airports at a time. It takes some seconds. Kill it in the middle, in
whatever way, and run the same command again::

    importing 28,298 airports (airportsdata 20260905) into sqlite:///airports.db
    ^Z
    $ kill -9 %1; python -m examples.airports
    resuming at batch 12 of 57

It resumes where it was and ends with every airport in the table once. Run it a third time: there is nothing to do.

Three things make it so, all in ``importing.py``:

* ``import_batch`` is a *transaction*: the 500 rows and the record that this batch is done are one
  commit. There is no moment at which one exists without the other.
* ``import_airports`` is a *workflow*: a plain function with a plain loop. When it runs again, the batches that are
  recorded are not; their results come from the record.
* The workflow ID is that of the data set, ``airports-20260905``. Starting a known ID again gives the workflow
  that exists, running or done, so the command may be run at any time, also twice at once.

The models are in ``models.py``, with every rule that the data keeps as a constraint. The facts printed at the end are
ORM queries, in ``facts.py``. ``--async`` imports with asyncio (``importing_async.py``); it has the same names, so it
finishes what the other one began, and the other way round.

The database is the file ``airports.db`` in the working directory, another one with ``--database FILE``, or whatever
``DBOS_DATABASE_URL`` names::

    DBOS_DATABASE_URL=postgresql://localhost/airports python -m examples.airports

One limit: an error is an outcome too. A full disk ends the import for good, since it would be reported under the
same workflow ID the next time; give it another database then.
"""
