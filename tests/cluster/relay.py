"""A network between hosts that are network namespaces: hands Ethernet frames on, late, in part, or not at all.

Run:  ip netns exec HUB python relay.py PORT PORT … [--delay MS] [--jitter MS] [--loss SHARE]
SIGUSR1 cuts the last port off from all others and joins it again at the next.

The kernel's own emulator (netem) is not built into every kernel; AF_PACKET sockets are.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import random
import select
import signal
import socket
import struct
import sys
import time

ETH_P_ALL, SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC, PACKET_OUTGOING = 3, 263, 1, 1, 4
FRAMES_AT_ONCE = 64  # from one port before the others have their turn
BUFFER = 1 << 26  # bytes


class Relay:
    """A learning switch among ``ports``; ``delay`` and ``jitter`` (standard deviation) in seconds, ``loss`` a share."""

    def __init__(self, ports: list[str], delay: float, jitter: float, loss: float, seed: int) -> None:
        self._sockets = [self._open(port) for port in ports]
        self._delay, self._jitter, self._loss = delay, jitter, loss
        self._random = random.Random(seed)
        self._behind: dict[bytes, int] = {}  # MAC address -> port
        self._queue: list[tuple[float, int, int, bytes]] = []  # when, order, port, frame
        self._latest = [0.0] * len(ports)  # a wire keeps the order
        self._count = 0
        self.cut = False

    @staticmethod
    def _open(port: str) -> socket.socket:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        end.bind((port, 0))
        end.setblocking(False)
        request = struct.pack("iHH8s", socket.if_nametoindex(port), PACKET_MR_PROMISC, 0, b"")
        end.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
        return end

    def turn(self) -> None:
        """Deliver what is due, then wait for frames or for the next that is."""
        while self._queue and self._queue[0][0] <= time.monotonic():
            _, _, port, frame = heapq.heappop(self._queue)
            with contextlib.suppress(OSError):  # a full queue or a link that has gone: a lost frame
                self._sockets[port].send(frame)
        patience = max(0.0, self._queue[0][0] - time.monotonic()) if self._queue else 1.0
        for end in select.select(self._sockets, [], [], patience)[0]:
            source = self._sockets.index(end)
            for _ in range(FRAMES_AT_ONCE):
                try:
                    frame, address = end.recvfrom(65600)
                except BlockingIOError:
                    break
                if address[2] != PACKET_OUTGOING:
                    self._accept(source, frame)

    def _accept(self, source: int, frame: bytes) -> None:
        self._behind[frame[6:12]] = source
        known = self._behind.get(frame[:6])
        others = [port for port in range(len(self._sockets)) if port != source]
        last = len(self._sockets) - 1
        for port in others if known is None else [known]:
            if self._random.random() < self._loss or (self.cut and last in (source, port)):
                continue
            wait = self._random.gauss(self._delay, self._jitter) if self._jitter else self._delay
            self._latest[port] = max(self._latest[port], time.monotonic() + max(0.0, wait))
            self._count += 1
            heapq.heappush(self._queue, (self._latest[port], self._count, port, frame))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ports", nargs="+")
    parser.add_argument("--delay", type=float, default=0.0, help="ms")
    parser.add_argument("--jitter", type=float, default=0.0, help="ms, standard deviation")
    parser.add_argument("--loss", type=float, default=0.0, help="share of frames")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    relay = Relay(options.ports, options.delay / 1e3, options.jitter / 1e3, options.loss, options.seed)

    def toggle(*_: object) -> None:
        relay.cut = not relay.cut

    signal.signal(signal.SIGUSR1, toggle)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("ready", flush=True)
    while True:
        relay.turn()


if __name__ == "__main__":
    main()
