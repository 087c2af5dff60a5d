"""A server's life in a process of its own: served until SIGTERM or SIGINT, then a clean exit.

On the signal health says NOT_SERVING, new requests are refused, those under way are answered, and
the process ends with 0: within two seconds after the grace period, whatever still runs. A second
signal ends it at once.
"""

import contextlib
import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from tf_groupvit.errors import ServerError
from tf_groupvit.server.admission import open_files
from tf_groupvit.server.config_files import ServedModel
from tf_groupvit.server.options import Options
from tf_groupvit.server.ports import Ports
from tf_groupvit.server.running import ModelPaths, Server

_log = logging.getLogger("tf_groupvit.server")
# After the grace period: for the fronts to close and models to unload; for a cut-off to happen.
_CUT_OFF_SECONDS, _CERTAIN_SECONDS = 1.4, 1.9
Announce = Callable[[str, int, int, list[str]], None]


def serve_until_stopped(
    models: ModelPaths | list[ServedModel],
    ports: Ports,
    announce: Announce,
    options: Options,
) -> None:
    """Serve on ports that are held, and block. ``announce`` is called when they are listened on.

    Raises ServerError, ConfigError.
    """
    grace = options.shutdown_grace_seconds
    stop, broken = threading.Event(), threading.Event()

    def on_fault() -> None:
        broken.set()
        stop.set()

    open_files(most=True)  # each connection is one
    server = Server(models, options=options, ports=ports, on_fault=on_fault)
    stop_on_signals(stop, server)
    server.start()
    _forget_start_up()
    announce(ports.host, server.port or 0, server.rest_api_port or 0, server.models.names)
    stop.wait()
    _log.info(
        "Stopping: %d requests under way have %g s to finish",
        server.limit.admitted,
        grace,
    )
    code = 2 if broken.is_set() else 0
    cut_off_after(grace, server, code)
    _end_for_certain(grace + _CERTAIN_SECONDS)
    ended = server.stop(grace)
    _log.info("Stopped")
    if broken.is_set():
        raise ServerError(
            "A front ended by an exception, which the log shows, so that the server stopped."
        )
    if not ended:  # a warm-up, under which the interpreter would tear TensorFlow down
        _leave_now(code)


def stop_on_signals(stop: threading.Event, server: Server) -> None:
    """Set ``stop`` on SIGTERM or SIGINT; end the process on the second, and before the start."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set() or not server.started:  # nothing to finish
            os._exit(128 + number if stop.is_set() else 0)
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)


def cut_off_after(
    grace: float, server: Server, code: int, leave: Callable[[int], None] = os._exit
) -> None:
    """End the process soon after the grace period, whatever runs then; returns at once.

    A request that does not end keeps its thread, and the interpreter waits for its threads before
    it exits.
    """

    def cut_off() -> None:
        _log.warning("Stopped; requests under way that were cut off: %d", server.limit.admitted)
        _leave_now(code, leave)

    timer = threading.Timer(grace + _CUT_OFF_SECONDS, cut_off)
    timer.daemon = True
    timer.start()


def _leave_now(code: int, leave: Callable[[int], None] = os._exit) -> None:
    with contextlib.suppress(OSError, ValueError):  # a stream that is closed
        sys.stdout.flush()
        sys.stderr.flush()
    leave(code)


def _end_for_certain(seconds: float) -> None:
    """End the process also where no Python runs, as in a C function that keeps the GIL."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=open(os.devnull, "w"))  # noqa: SIM115 - until the end


def _forget_start_up() -> None:
    """Keep what start-up made, TensorFlow above all, out of later garbage collections."""
    gc.collect()
    gc.freeze()
