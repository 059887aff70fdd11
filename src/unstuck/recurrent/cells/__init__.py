"""Recurrent cells, one a file: each is a function named like it, from a `Step` to its new states."""
