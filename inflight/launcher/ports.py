"""The three TCP ports of a server."""

import socket
from dataclasses import dataclass

from inflight.errors import InflightError


@dataclass(frozen=True)
class Ports:
    http: int
    grpc: int
    metrics: int


def choose_ports(http: int, grpc: int, metrics: int) -> Ports:
    """0 stands for any free port. Raises InflightError naming the first port that is taken."""
    wanted = {"http": http, "grpc": grpc, "metrics": metrics}
    chosen = {}
    sockets = []  # kept open until all are chosen, so that they differ
    try:
        for name, port in wanted.items():
            listener = socket.socket()
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("", port))
            except (OSError, OverflowError) as error:
                reason = getattr(error, "strerror", None) or error
                raise InflightError(
                    f"{name} port {port} cannot be used ({reason}): choose another with --{name}_port"
                ) from error
            chosen[name] = listener.getsockname()[1]
    finally:
        for listener in sockets:
            listener.close()
    return Ports(**chosen)
