"""On a terminal: what it learns of it, colours and a progress line."""

import os
import sys

import tiny

print(sys.stdin.isatty(), sys.stdout.isatty(), sys.stderr.isatty(), os.get_terminal_size(), sys.stdout.line_buffering)
tiny.train(at_step=lambda step: print(f"\r\x1b[32m{step}/5\x1b[0m", end="", flush=True))
print()
