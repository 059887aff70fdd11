"""Recurrent networks: cells, layers, networks of delays, and how far a memory reaches back."""
