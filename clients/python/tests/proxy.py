"""A way to the coordinator that breaks: connections are cut, or forgotten without a word."""

import selectors
import socket
import threading


class Proxy:
    """Listens on a port of its own and carries bytes to the coordinator, while it may."""

    def __init__(self, port):
        self.target = ("127.0.0.1", port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.pairs, self.hushed, self.accepted = {}, set(), 0
        self.lock, self.over = threading.Lock(), False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.over:
            for key, _ in self.selector.select(0.02):
                with self.lock:
                    if key.fileobj is self.listener:
                        self.accept()
                    elif key.fileobj in self.pairs:
                        self.carry(key.fileobj)
        with self.lock:
            self.listener.close()
            for sock in list(self.pairs):
                sock.close()

    def accept(self):
        client, _ = self.listener.accept()
        self.accepted += 1
        try:
            server = socket.create_connection(self.target, timeout=5)
        except OSError:
            return client.close()
        for one, other in ((client, server), (server, client)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.pairs[one] = other
            self.selector.register(one, selectors.EVENT_READ)

    def carry(self, sock):
        other = self.pairs[sock]
        try:
            data = sock.recv(65536)
            if data and sock not in self.hushed:
                other.sendall(data)
        except OSError:
            data = b""
        if not data:
            self.end(sock, other)

    def end(self, *socks):
        for sock in socks:
            if sock in self.pairs:
                self.selector.unregister(sock)
                del self.pairs[sock]
                self.hushed.discard(sock)
                sock.close()

    def cut(self):
        """Ends all connections."""
        with self.lock:
            self.end(*list(self.pairs))

    def hush(self):
        """Forgets all connections there are; new ones are good."""
        with self.lock:
            self.hushed.update(self.pairs)

    def close(self):
        self.over = True
        self.thread.join()
