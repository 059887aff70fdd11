"""Starts Python programs of its own: they must not be taken for it, nor find anything in their way."""

import subprocess
import sys

import digest
import tiny

model, optimizer, losses = tiny.train()
for code in (
    "import tiny, digest; digest.show(tiny.train(seed=2)[0])",
    "import sys; print(sys.argv, sys.path[1:2]); sys.exit(3)",
):
    done = subprocess.run([sys.executable, "-c", code, "argument"], capture_output=True, text=True)
    print(done.returncode, done.stdout, done.stderr, sep="\n")
digest.show(model, losses=losses, optimizers=[optimizer])
