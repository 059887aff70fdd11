"""What a program can see of how it was started."""

import atexit
import inspect
import os
import random
import signal
import sys
import threading
import warnings
from pathlib import Path

import torch

atexit.register(print, "last words")
print(sys.argv, __name__, Path(__file__).name, __spec__, __doc__, __package__)
print(sorted(key for key in globals() if not key.startswith("_")))
print([Path(part).name for part in sys.path], Path.cwd().name)
print(sorted(key for key in os.environ if key != "PYTHONPATH" and not key.startswith("UNSTUCK_")))
print([part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and "unstuck" not in part])
print(sys.flags, sys.warnoptions, len(warnings.filters))
print(
    sys.excepthook is sys.__excepthook__,
    threading.excepthook is threading.__excepthook__,
    sys.gettrace(),
    sys.getprofile(),
)
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGTERM))
print(
    sys.stdout.encoding, sys.stdout.errors, sys.stdout.line_buffering, sys.getrecursionlimit(), sys.getswitchinterval()
)
print(inspect.getsource(sys.modules["__main__"]).splitlines()[0])
print(torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(), torch.initial_seed() != 0)
print(torch.backends.mkldnn.enabled, torch.are_deterministic_algorithms_enabled(), torch.is_anomaly_enabled())
random.seed(0)
print(random.random(), threading.main_thread() is threading.current_thread())
