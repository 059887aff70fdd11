"""Paired, seeded trainings: run, raced, and compared."""
