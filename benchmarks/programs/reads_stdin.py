"""Reads its standard input, by line and to the end."""

import sys

print(sys.stdin.buffer.readline(), sys.stdin.isatty())
print(sys.stdin.buffer.read())
