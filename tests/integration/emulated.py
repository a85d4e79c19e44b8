"""The emulated network in tests: skipped where this machine has none; scripts that run inside it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from stress.net import Emulator, NoEmulator

# `python -c UDP_ECHO`: whatever comes goes back to where it came from.
UDP_ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 7000))
print("ready", flush=True)
while True:
    data, sender = server.recvfrom(2048)
    server.sendto(data, sender)
"""

# `python -c UDP_PING ADDRESS COUNT TIMEOUT_S`: seconds until each echo, or None, as a list in JSON.
UDP_PING = """
import json, socket, sys, time
address, count, timeout = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(timeout)
seconds = []
for number in range(count):
    began = time.monotonic()
    client.sendto(str(number).encode(), (address, 7000))
    try:
        while int(client.recv(2048)) != number:
            pass
        seconds.append(time.monotonic() - began)
    except TimeoutError:
        seconds.append(None)
print(json.dumps(seconds))
"""

# `python -c UDP_COUNT`: numbered datagrams in the order in which they came, as a list in JSON, once its
# standard input has ended.
UDP_COUNT = """
import json, select, socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
server.bind(("", 7000))
print("ready", flush=True)
came = []
while server in select.select([server, sys.stdin], [], [])[0]:
    came.append(int(server.recv(2048)[:8]))
print(json.dumps(came))
"""

# `python -c UDP_SEND ADDRESS COUNT BYTES PER_SECOND`: numbered datagrams.
UDP_SEND = """
import socket, sys, time
address, count, size, rate = sys.argv[1], *map(int, sys.argv[2:])
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.setsockopt(socket.SOL_SOCKET, 32, 1 << 26)  # SO_SNDBUFFORCE
client.connect((address, 7000))
began = time.monotonic()
for number in range(count):
    client.send(b"%08d" % number + bytes(size - 8))
    ahead = began + number / rate - time.monotonic()
    if ahead > 0.001:
        time.sleep(ahead)
"""

# `python -c TCP_SINK`: takes one connection; bytes, and seconds from its first byte to its last.
TCP_SINK = """
import json, socket, time
server = socket.create_server(("", 7000))
print("ready", flush=True)
connection, _ = server.accept()
count, first, last = 0, None, None
while data := connection.recv(1 << 20):
    count += len(data)
    last = time.monotonic()
    first = first or last
print(json.dumps([count, last - first]))
"""

# `python -c TCP_SEND ADDRESS BYTES`
TCP_SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], 7000), 10) as connection:
    for _ in range(int(sys.argv[2]) >> 16):
        connection.sendall(bytes(1 << 16))
"""

# `python -c TCP_DIGEST`: takes one connection; the digest of its bytes.
TCP_DIGEST = """
import hashlib, json, socket
server = socket.create_server(("", 7000))
print("ready", flush=True)
connection, _ = server.accept()
digest = hashlib.sha256()
while data := connection.recv(1 << 20):
    digest.update(data)
print(json.dumps(digest.hexdigest()))
"""

# `python -c TCP_SEND_RANDOM ADDRESS BYTES`: the digest of what it sent.
TCP_SEND_RANDOM = """
import hashlib, json, random, socket, sys
data = random.Random(3).randbytes(int(sys.argv[2]))
with socket.create_connection((sys.argv[1], 7000), 10) as connection:
    connection.sendall(data)
print(json.dumps(hashlib.sha256(data).hexdigest()))
"""

# The fixture `inside`: inside(net, peer, source, *arguments).
Inside = Callable[..., "subprocess.Popen[str]"]


def emulator(*arguments: Any, **options: Any) -> Emulator:
    """An Emulator, or the test is skipped."""
    try:
        return Emulator(*arguments, **options)
    except NoEmulator as error:
        pytest.skip(f"no emulated network here; missing: {error}")
