"""Ports that are bound before TensorFlow and the models are loaded, and listened on afterwards.

So a port that is wrong or in use is found at once, and nobody else can take it in between. Until
the models are available nothing listens: connections are refused, as by the real server.
"""

import contextlib
import errno
import socket

from tf_groupvit.errors import InputError, ServerError
from tf_groupvit.server.status import loggable

LARGEST = 65_535


class Port:
    """The port of one front end: None where it does not listen, 0 for any that is free.

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
        """Bind the port, unless that is done. Raises ServerError."""
        if self.number is None or self._socket is not None:
            return
        try:
            self._socket = bound_socket(self.host, self.number)
        except OSError as error:
            taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
            of_port = taken and not isinstance(error, socket.gaierror)
            raise self.refused(error.strerror or str(error), of_port) from error
        self.number = self._socket.getsockname()[1]

    def listening(self) -> socket.socket:
        """The socket, listening; the caller closes it. Raises ServerError."""
        self.hold()
        assert self._socket is not None, "a front end without a port does not listen"
        listening, self._socket = self._socket, None
        try:
            # for the next start, see `bound_socket`
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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
        """The error that says that the port, or else the host, cannot be listened on."""
        advice = "--host is an address or name of this machine"
        if of_port:
            advice = f"{self.option} 0 takes any free port"
        place = f"{loggable(self.host)}:{self.number}"
        return ServerError(f"Cannot listen for {self.front} on {place} ({why}): {advice}.")


class Ports:
    """The ports of a server. Raises InputError for what is no port, and for one given twice."""

    def __init__(self, host: str, grpc: int | None, rest: int | None) -> None:
        self.host = host
        self.grpc = Port("gRPC", "--port", host, grpc)
        self.rest = Port("REST", "--rest-api-port", host, rest)
        if grpc and grpc == rest:
            raise InputError(
                f"--port and --rest-api-port are both {grpc}: each front needs a port of its own."
            )

    def hold(self) -> "Ports":
        """Bind both, or none. Raises ServerError."""
        try:
            self.grpc.hold()
            self.rest.hold()
        except ServerError:
            self.release()
            raise
        return self

    def release(self) -> None:
        """Give both back."""
        self.grpc.release()
        self.rest.release()

    def __enter__(self) -> "Ports":
        return self.hold()

    def __exit__(self, *_: object) -> None:
        self.release()


def bound_socket(host: str, number: int) -> socket.socket:
    """A socket bound to the port so that no other can be, whatever its options; it does not listen.

    Raises OSError, also for a host that has no address and for what is no port.
    """
    if not 0 <= number <= LARGEST:  # else the system takes what is left of it: 34463 for 99999
        raise OSError(errno.EINVAL, f"a port is 0 to {LARGEST}")
    try:
        found = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (UnicodeError, ValueError, OverflowError) as error:
        raise OSError(errno.EINVAL, "that is no host name") from error
    family, _, _, _, address = found[0]
    # With its protocol named, so that asyncio sets TCP_NODELAY on each connection; answers took
    # 40 ms without it.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        try:
            bound.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            # A port whose last connections are not forgotten yet can be bound with SO_REUSEADDR
            # only, and then by others too, as long as nobody listens. Listening for a moment shows
            # that nobody does, and makes the port ours alone.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(1)
            with contextlib.suppress(OSError):  # else a caller waits instead of being refused
                bound.shutdown(socket.SHUT_RDWR)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except BaseException:
        bound.close()
        raise
    return bound
