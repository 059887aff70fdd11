"""`python -m unstuck`: the command line."""

from unstuck.cli import main

main()
