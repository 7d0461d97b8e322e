"""Who does the work: one module each, run as a program by ``benchmarks.contender``."""
