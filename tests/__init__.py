"""The tests: ``unit`` needs no server, ``integration`` real databases, ``acceptance`` real processes."""
