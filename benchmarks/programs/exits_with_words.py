"""`sys.exit` with a message, and no torch at all."""

import sys

print("out")
print("err", file=sys.stderr)
sys.exit("this goes to stderr")
