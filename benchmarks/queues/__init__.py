"""Queues: measurements, and the contenders' sides of them; a part of ``python -m benchmarks``.

A contender plays one part in each of its processes (``task``, ``part``): it fills a queue, consumes it, starts one
thing after another, or starts in bulk. ``program`` is our side of such a process, ``runs`` has who does what
when and takes the time, ``measurements`` what is measured, and ``report`` prints.
"""
