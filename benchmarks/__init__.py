"""Measurements, as ratios within one run; ``python -m benchmarks``, and docs/benchmarks.md.

``measurements`` is what is measured, ``contenders`` has one module for each who does it, in a process of its
own (``worker`` is its side, ``contender`` ours), ``server`` and ``relay`` count, and ``report`` prints.
"""
