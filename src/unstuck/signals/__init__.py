"""Maths from tensors to numbers, as the watcher needs it inside a user's step."""
