"""Tests against real databases, in one process."""
