"""Bytes that are no text, a line without an end, and much of it."""

import sys

sys.stdout.buffer.write(bytes(range(256)) * 1000)
sys.stderr.buffer.write(b"\xff\xfe half a line")
sys.stdout.write("no newline at the end")
