"""One module for each who has queues; each runs in an environment of its own."""
