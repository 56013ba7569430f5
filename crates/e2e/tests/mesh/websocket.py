"""A WebSocket (RFC 6455) echo server and a client that checks a thousand echoes.

Arguments: server PORT, or client HOST PORT. Standard library alone.
"""

import base64
import hashlib
import os
import socket
import struct
import sys

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_value(key):
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


def read_head(stream):
    lines = iter(lambda: stream.readline().decode().rstrip("\r\n"), "")
    first = next(lines)
    return first, {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}


def read_frame(stream):
    """Opcode and payload of one frame, or None at the end."""
    head = stream.read(2)
    if len(head) < 2:
        return None
    length = head[1] & 0x7F
    if length == 126:
        (length,) = struct.unpack("!H", stream.read(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", stream.read(8))
    mask = stream.read(4) if head[1] & 0x80 else bytes(4)
    data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(stream.read(length)))
    return head[0] & 0x0F, data


def frame(opcode, data, mask):
    head = bytes([0x80 | opcode])
    masked = 0x80 if mask else 0
    if len(data) < 126:
        head += bytes([masked | len(data)])
    else:
        head += bytes([masked | 126]) + struct.pack("!H", len(data))
    if mask:
        head += mask
        data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
    return head + data


def serve(port):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        connection, _ = listener.accept()
        stream = connection.makefile("rb")
        _, headers = read_head(stream)
        connection.sendall(
            (
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept_value(headers['sec-websocket-key'])}\r\n\r\n"
            ).encode()
        )
        while (got := read_frame(stream)) is not None and got[0] != 8:
            connection.sendall(frame(got[0], got[1], b""))
        connection.shutdown(socket.SHUT_RDWR)
        stream.close()
        connection.close()


def ask(host, port):
    connection = socket.create_connection((host, port), timeout=20)
    stream = connection.makefile("rb")
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        (
            "GET /echo HTTP/1.1\r\nHost: echo\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        ).encode()
    )
    status, headers = read_head(stream)
    assert " 101 " in status + " ", status
    assert headers["sec-websocket-accept"] == accept_value(key), headers
    for number in range(1000):
        data = os.urandom(number)
        connection.sendall(frame(2, data, os.urandom(4)))
        assert read_frame(stream) == (2, data), f"echo {number}"
    connection.sendall(frame(8, b"", os.urandom(4)))
    assert stream.read() == b"", "bytes after the end"
    print("1000 echoes")


if sys.argv[1] == "server":
    serve(int(sys.argv[2]))
else:
    ask(sys.argv[2], int(sys.argv[3]))
