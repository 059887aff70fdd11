"""What can be done about a cause, one remedy a file: which settings to try, and how they are written into a script."""
