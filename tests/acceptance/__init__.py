"""Tests with real processes, killed and stopped at will."""
