"""Watches a training while it runs and writes its record."""
