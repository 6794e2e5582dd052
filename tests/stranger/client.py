#!/usr/bin/env python3
"""A client of the lock service that knows docs/protocol.md and nothing else.

Usage: client.py HOST PORT NAME N
Acquires and releases one lock N times, and prints the fencing token of each grant on a line.
"""

import getpass
import os
import socket
import struct
import sys
import time

# The numbers of messages: those of the client, then those of the server.
HELLO, REQUEST, RELEASE, KEEP_ALIVE, GOODBYE = 0, 1, 2, 4, 5
WELCOME, GRANT, QUEUED, RELEASED, LOST, REJECTED, KEPT_ALIVE, FAREWELL = 0, 1, 2, 3, 5, 6, 7, 8
FRAME_LEN_MAX = 65536


def now():
    """A clock that goes on while the machine is suspended, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


class Refused(Exception):
    """The server said no, or something that the document does not allow."""


class Fields:
    """The fields of one message, read in order."""

    def __init__(self, payload):
        self.rest = payload

    def number(self, size):
        return int.from_bytes(self.take(size), "little")

    def string(self):
        return self.take(self.number(8)).decode()

    def take(self, count):
        if count > len(self.rest):
            raise Refused("a message is shorter than its fields")
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken


class Session:
    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received, self.sequence, self.ttl = b"", 0, None
        identity = string(f"{getpass.getuser()}@{socket.gethostname()}:{os.getpid()}"[:128])
        self.asked = now()
        # protocol 1, attach New, ttl_ms and linger_ms left to the server; no epoch or token seen
        self.send(HELLO, struct.pack("<III?", 1, 0, 0, False) + identity + bytes(16))
        welcome = self.expect(WELCOME)
        if welcome.number(4) != 1:
            raise Refused("the server speaks another version")
        welcome.take(welcome.number(8) + 8 + 16 + 16 + 8)  # from server to generation
        self.ttl = welcome.number(4) / 1000
        self.believe()
        self.socket.settimeout(self.ttl / 8)

    def believe(self):
        """What was sent last to ask for it was answered: the lease counts from its sending."""
        self.deadline = self.asked + self.ttl * 0.98 - 0.05
        self.unanswered = False

    def keep_alive(self):
        """Asks for the lease, once a quarter of it is over, one question at a time."""
        if self.ttl and not self.unanswered and now() > self.asked + self.ttl / 4:
            self.asked, self.unanswered = now(), True
            self.sequence += 1
            self.send(KEEP_ALIVE, struct.pack("<Q", self.sequence))

    def send(self, number, fields=b""):
        self.socket.sendall(struct.pack("<II", 4 + len(fields), number) + fields)

    def receive(self):
        """The next message: its number and its fields."""
        while True:
            self.keep_alive()
            if len(self.received) >= 4:
                end = 4 + int.from_bytes(self.received[:4], "little")
                if end > 4 + FRAME_LEN_MAX:
                    raise Refused("a frame is too long")
                if len(self.received) >= end:
                    fields, self.received = Fields(self.received[4:end]), self.received[end:]
                    return fields.number(4), fields
            try:
                more = self.socket.recv(65536)
            except socket.timeout:
                if self.ttl and now() < self.deadline:
                    continue
                raise Refused("no answer from the server") from None
            if not more:
                raise Refused("the connection ended")
            self.received += more

    def expect(self, expected, request=None):
        """The fields of the message that must come now, but for what may come at any time."""
        while True:
            number, fields = self.receive()
            if number == KEPT_ALIVE and fields.number(8) == self.sequence:
                self.believe()
            elif number == QUEUED:
                continue  # It waits, as it was told to.
            elif number == FAREWELL and (code := fields.number(2)) != 1:
                raise Refused(f"goodbye {code}, rejection {fields.number(2)}: {fields.string()}")
            elif number == REJECTED:
                raise Refused(f"no to {fields.number(8)}: {fields.number(2)}, {fields.string()}")
            elif number == LOST:
                raise Refused(f"request {fields.number(8)} lost token {fields.number(8)}")
            elif number != expected or (request and fields.number(8) != request):
                raise Refused(f"message {number} instead of {expected} for request {request}")
            else:
                return fields

    def acquire_and_release(self, request, name):
        # owner 0, wait Forever, no progress, no lock_delay_ms, note, ticket; 1 claim, Exclusive
        wanted = struct.pack("<QQI?I", request, 0, 0, False, 0) + string("")
        claims = struct.pack("<Q", 1) + string(name) + struct.pack("<I", 0)
        self.send(REQUEST, wanted + struct.pack("<?", False) + claims)
        token = self.expect(GRANT, request).number(8)
        if now() >= self.deadline:
            raise Refused("the lease is too old to be believed")
        print(token, flush=True)  # This is the work.
        self.send(RELEASE, struct.pack("<QQ", request, token))
        self.expect(RELEASED, request)


def main(host, port, name, count):
    session = Session(host, int(port))
    for request in range(1, int(count) + 1):
        session.acquire_and_release(request, name)
    session.send(GOODBYE)
    session.expect(FAREWELL)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:]) if len(sys.argv) == 5 else sys.exit(__doc__)
    except (Refused, OSError) as error:
        sys.exit(f"client.py: {error}")
