"""Takes and frees locks by Redis' protocol as fast as the server answers: SET key value NX PX, then the script that
frees it. Says how many pairs a second.

    pairs.py PORT CONNECTIONS PAIRS-IN-A-WRITE SECONDS

With 1 pair in a write, each connection waits for the answer to its SET before it frees. With more, it takes and frees so
many keys in one write. Every key has one user: this measures the server, not contention.
"""
import os
import select
import socket
import sys
import time

port, connections, depth, seconds = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
FREE = "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end"


def request(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in map(str.encode, words))


def connect():
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


first = connect()
first.sendall(request("SCRIPT", "LOAD", FREE))
sha = first.recv(4096).split(b"\r\n")[1].decode()
first.close()


def steps(number):
    """What one connection says, again and again, and how it is answered."""
    takes = [request("SET", f"bench/{os.getpid()}/{number}/{at}", f"{number:08}-{at:012}", "NX", "PX", "40000") for at in range(depth)]
    frees = [request("EVALSHA", sha, "1", f"bench/{os.getpid()}/{number}/{at}", f"{number:08}-{at:012}") for at in range(depth)]
    if depth == 1:
        return [(takes[0], b"+OK\r\n"), (frees[0], b":1\r\n")]
    pairs = b"".join(take + free for take, free in zip(takes, frees))
    return [(pairs, b"+OK\r\n:1\r\n" * depth)]


class Link:
    def __init__(self, number):
        self.sock, self.steps, self.at, self.heard = connect(), steps(number), 0, b""

    def say(self):
        self.sock.sendall(self.steps[self.at][0])

    def hear(self):
        """Takes what has come. Says how many pairs are done by it."""
        said = self.sock.recv(65536)
        wanted = self.steps[self.at][1]
        self.heard = self.heard + said if self.heard else said
        if len(self.heard) < len(wanted):
            return 0
        if self.heard != wanted:
            sys.exit(f"unexpected answer: {self.heard[:80]!r}")
        self.heard = b""
        self.at = (self.at + 1) % len(self.steps)
        self.say()
        return depth if self.at == 0 else 0


links = [Link(number) for number in range(connections)]
poll = select.epoll()
by_file = {}
for link in links:
    poll.register(link.sock, select.EPOLLIN)
    by_file[link.sock.fileno()] = link
for link in links:
    link.say()
warm, done, began = time.monotonic() + 0.3, 0, None
while True:
    for file, _ in poll.poll():
        done += by_file[file].hear()
    now = time.monotonic()
    if began is None:
        if now >= warm:
            began, done = now, 0
    elif now - began >= seconds:
        break
print(round(done / (now - began)))
