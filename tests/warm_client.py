"""The client of `warm.py`: a stand-in for ``charrnn``. Imports little, because it is started often.

python -I -S warm_client.py SOCKET ARGUMENTS
"""

import _signal as signal
import array
import json
import os
import sys
from _socket import AF_UNIX, SCM_RIGHTS, SOL_SOCKET, socket


def main() -> None:
    server = socket(AF_UNIX)
    server.connect(sys.argv[1])
    forwarded = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    ignored = [number for number in forwarded if signal.getsignal(number) == signal.SIG_IGN]
    for number in forwarded:
        if number not in ignored:
            signal.signal(number, lambda number, frame: server.send(bytes([number])))
    env = dict(os.environ)
    request = json.dumps({"arguments": sys.argv[2:], "cwd": os.getcwd(), "env": env, "ignored": ignored}).encode()
    rights = [(SOL_SOCKET, SCM_RIGHTS, array.array("i", [0, 1, 2]))]
    server.sendmsg([len(request).to_bytes(8, "little")], rights)
    server.sendall(request)
    devnull = os.open(os.devnull, os.O_RDWR)
    for number in range(3):  # so that a pipe closes when the command ends
        os.dup2(devnull, number)
    status = int.from_bytes(server.recv(4), "little")
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


main()
