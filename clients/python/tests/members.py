"""Members of a cluster: who leads passes clients on to the coordinator, the others name the leader."""

import socket
import struct
import threading

NOT_LEADER = 12


def farewell(leader):
    """A Goodbye of one that does not lead."""
    text = leader.encode()
    payload = struct.pack("<IHHQ", 8, NOT_LEADER, 0, len(text)) + text
    return struct.pack("<I", len(payload)) + payload


def receive(sock, size):
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise OSError("over")
        data += more
    return data


def frame(sock):
    size = receive(sock, 4)
    return size + receive(sock, int.from_bytes(size, "little"))


class Member:
    """``leads_to`` is the port of a coordinator; without one it names ``leader``."""

    def __init__(self, leads_to=None, leader=""):
        self.leads_to, self.leader, self.accepted = leads_to, leader, 0
        self.lock, self.open = threading.RLock(), []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        try:
            if self.leads_to is None:
                frame(client)
                client.sendall(farewell(self.leader))
                return client.close()
            server = socket.create_connection(("127.0.0.1", self.leads_to))
            with self.lock:
                self.open.append(client)
            threading.Thread(target=self.carry, args=(client, server), daemon=True).start()
            while True:  # Frame by frame, so that a goodbye stands between two.
                data = frame(server)
                with self.lock:
                    if client not in self.open:
                        raise OSError("over")
                    client.sendall(data)
        except OSError:
            client.close()

    def carry(self, client, server):
        try:
            while True:
                data = client.recv(65536)
                if not data:
                    break
                server.sendall(data)
        except OSError:
            pass
        server.close()

    def hand_over_to(self, other):
        """Its clients are told who leads now."""
        with self.lock:
            clients, self.open = self.open, []
            self.leads_to, self.leader = None, other.address
            for client in clients:
                client.sendall(farewell(other.address))
                client.shutdown(socket.SHUT_RDWR)

    def die(self):
        """Nobody is there any more."""
        with self.lock:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            for client in self.open:
                client.shutdown(socket.SHUT_RDWR)
