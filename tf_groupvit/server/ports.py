"""Ports: a host and port numbers in; ports that are taken before anything is loaded, and listened
on afterwards, out.

A port that is wrong or in use is found before TensorFlow and the models are loaded, and nobody else
can take it while they are. Nothing listens until the models are available: connections are refused
until then, as by the real server.
"""

import contextlib
import errno
import socket

from tf_groupvit.errors import InputError, ServerError
from tf_groupvit.server.status import loggable

LARGEST = 65_535


class Port:
    """The port of one front. ``number`` is None where the front does not listen, 0 for any that is
    free.

    Raises InputError for what is no port.
    """

    def __init__(self, front: str, option: str, host: str, number: int | None) -> None:
        if number is not None and not 0 <= number <= LARGEST:
            raise InputError(
                f"{option} is {number}: expected 0 to {LARGEST}, where 0 is any port that is free."
            )
        self.front, self.option, self.host, self.number = front, option, host, number
        self._socket: socket.socket | None = None

    def hold(self) -> None:
        """Take the port, unless it is taken already. Raises ServerError."""
        if self.number is None or self._socket is not None:
            return
        try:
            self._socket = held(self.host, self.number)
        except OSError as error:
            of_port = not isinstance(error, socket.gaierror) and error.errno in (
                errno.EADDRINUSE,
                errno.EACCES,
            )
            raise self.refused(error.strerror or str(error), of_port) from error
        self.number = self._socket.getsockname()[1]

    def listening(self) -> socket.socket:
        """The socket, listening; the caller closes it. Raises ServerError."""
        self.hold()
        assert self._socket is not None, "a front without a port does not listen"
        listening, self._socket = self._socket, None
        try:
            listening.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # for the next start, see `held`
            listening.listen(2048)
        except OSError as error:
            listening.close()
            raise self.refused(error.strerror or str(error)) from error
        return listening

    def release(self) -> None:
        """Give the port back, for whoever opens it by its number."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def refused(self, why: str, of_port: bool = True) -> ServerError:
        """The error that says that the port cannot be listened on, or that the host has none."""
        place = f"{loggable(self.host)}:{self.number}"
        advice = (
            f"{self.option} 0 takes any free port"
            if of_port
            else "--host is an address or name of this machine"
        )
        return ServerError(f"Cannot listen for {self.front} on {place} ({why}): {advice}.")


class Ports:
    """The ports of a server's two fronts. Raises InputError for what is no port, and for one port
    given twice.
    """

    def __init__(self, host: str, grpc: int | None, rest: int | None) -> None:
        self.host = host
        self.grpc = Port("gRPC", "--port", host, grpc)
        self.rest = Port("REST", "--rest-api-port", host, rest)
        if grpc and grpc == rest:
            raise InputError(
                f"--port and --rest-api-port are both {grpc}: each front needs a port of its own."
            )

    def hold(self) -> "Ports":
        """Take both, or none. Raises ServerError."""
        try:
            self.grpc.hold()
            self.rest.hold()
        except ServerError:
            self.release()
            raise
        return self

    def release(self) -> None:
        self.grpc.release()
        self.rest.release()

    def __enter__(self) -> "Ports":
        return self.hold()

    def __exit__(self, *_: object) -> None:
        self.release()


def held(host: str, number: int) -> socket.socket:
    """A socket bound to the port, which nobody else can bind, and which does not listen. Raises
    OSError, also for a host that has no address and for what is no port.
    """
    if not 0 <= number <= LARGEST:  # else the system takes what is left of it: 34463 for 99999
        raise OSError(errno.EINVAL, f"a port is 0 to {LARGEST}")
    try:
        found = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except (UnicodeError, ValueError, OverflowError) as error:
        raise OSError(errno.EINVAL, "that is no host name") from error
    # With its protocol named, so that asyncio sets TCP_NODELAY on each connection; answers took 40
    # ms without it.
    taken = socket.socket(found[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        _bind(taken, found[4])
    except BaseException:
        taken.close()
        raise
    return taken


def _bind(taken: socket.socket, address: tuple) -> None:
    """Bind so that no other socket can, whatever its options.

    A port whose last connections are not forgotten yet can be bound with SO_REUSEADDR only, and
    then by others too, as long as nobody listens. Listening for a moment shows that nobody does,
    and makes the port ours alone.
    """
    try:
        taken.bind(address)
        return
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(address)
    taken.listen(1)
    with contextlib.suppress(
        OSError
    ):  # where it cannot stop listening, a caller waits instead of being refused
        taken.shutdown(socket.SHUT_RDWR)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
