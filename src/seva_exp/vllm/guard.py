"""Runs a server so that nothing of it is left behind: ``python -I guard.py COMMAND...``.

The process that starts it gives it a session of its own, which the server's children share. When
the server ends, or this process's standard input does (whoever started it is gone), all of the
session's group are ended: asked first, killed a few seconds later. Otherwise vLLM's engine and
workers outlive a killed server.
"""

import os
import signal
import subprocess
import sys
import threading
import time

ASKED_SECONDS = 10.0


def main() -> None:
    if os.getpgid(0) != os.getpid():
        sys.exit("guard.py ends its whole process group: give it one of its own")
    # Asked to end with the group, it stays until the others are gone.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)

    def end_with_parent() -> None:
        while os.read(0, 1):
            continue
        server.terminate()
        time.sleep(ASKED_SECONDS)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=end_with_parent, daemon=True).start()
    server.wait()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
