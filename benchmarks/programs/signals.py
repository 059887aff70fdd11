"""What it was told to do about signals, by whoever started it."""

import signal

for which in sorted(signal.valid_signals()):
    print(which, signal.getsignal(which))
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
