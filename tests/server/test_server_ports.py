"""Ports: wrong or taken ones are refused in one line, before anything is loaded."""

import socket
import sys

import pytest
from click.testing import CliRunner
from test_server_versions import Loader

from tf_groupvit.cli import main
from tf_groupvit.errors import InputError, ServerError
from tf_groupvit.server import running
from tf_groupvit.server.ports import Ports
from tf_groupvit.server.running import Options, Server


@pytest.fixture
def base_path(tmp_path):
    (tmp_path / "1").mkdir()
    return tmp_path


@pytest.fixture
def taken():
    """A port that somebody listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.fixture
def serve(base_path, monkeypatch):
    """The command, which fails the test where it begins to load anything."""
    monkeypatch.setitem(sys.modules, "tf_groupvit.server.lifecycle", None)
    return lambda *arguments: CliRunner().invoke(main, ["serve", str(base_path), *arguments])


@pytest.mark.parametrize("option", ["--port", "--rest-api-port"])
@pytest.mark.parametrize("number", ["99999", "65536", "-1", "4294967296"])
def test_what_is_no_port_is_refused_in_one_line(serve, option, number):
    result = serve(option, number)
    assert result.exit_code == 2
    assert (
        result.output
        == f"Error: {option} is {number}: expected 0 to 65535, where 0 is any port that is free.\n"
    )


@pytest.mark.parametrize(
    ("option", "other"), [("--port", "--rest-api-port"), ("--rest-api-port", "--port")]
)
def test_a_port_in_use_is_found_before_anything_is_loaded(serve, taken, option, other):
    result = serve(option, str(taken), other, "0")
    front = {"--port": "gRPC", "--rest-api-port": "REST"}[option]
    assert result.exit_code == 2
    assert (
        result.output
        == f"Error: Cannot listen for {front} on 127.0.0.1:{taken} (Address already in use):"
        f" {option} 0 takes any free port.\n"
    )


def test_one_port_for_both_fronts_is_refused(serve):
    result = serve("--port", "8500", "--rest-api-port", "8500")
    assert result.exit_code == 2
    assert (
        result.output
        == "Error: --port and --rest-api-port are both 8500: each front needs a port of its own.\n"
    )


@pytest.mark.parametrize("host", ["a" * 70, "", "\udc80", "192.0.2.1"])
def test_a_host_that_cannot_be_bound_is_refused_in_one_line(serve, host):
    result = serve("--host", host, "--port", "0", "--rest-api-port", "0")
    assert result.exit_code == 2 and result.output.startswith("Error: Cannot listen for gRPC on ")
    assert result.output.count("\n") == 1 and result.output.endswith(
        "--host is an address or name of this machine.\n"
    )


def test_a_name_without_an_address_is_refused_in_one_line(serve, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    result = serve("--host", "nowhere")
    assert (
        result.exit_code == 2
        and result.output
        == "Error: Cannot listen for gRPC on nowhere:8500 (Name or service not known): "
        "--host is an address or name of this machine.\n"
    )


def test_in_python_too_and_nothing_is_left_behind(base_path, taken):
    with pytest.raises(InputError, match="--port is 99999"):
        Server({"m": base_path}, port=99999)
    with pytest.raises(ServerError, match=f"Cannot listen for REST on 127.0.0.1:{taken} "):
        Server({"m": base_path}, rest_api_port=taken).start()


def test_ports_are_held_while_models_load_and_refuse_connections_until_then(base_path, monkeypatch):
    loader, seen = Loader(), []

    def load(path: str, *_):
        number = server.rest_api_port
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", number))
        for port in (server.port, number):
            with pytest.raises(ServerError, match="Address already in use"):
                Ports("127.0.0.1", port, None).hold()
        seen.append(number)
        return loader(path)

    monkeypatch.setattr(running, "load", load)
    server = Server({"m": base_path}, options=Options(enable_model_warmup=False))
    with server:
        assert seen == [server.rest_api_port]
        for port in (server.port, server.rest_api_port):
            socket.create_connection(("127.0.0.1", port)).close()


def test_a_port_whose_last_connections_are_not_forgotten_is_held_against_everyone():
    first = Ports("127.0.0.1", None, 0)
    first.hold()
    number = first.rest.number
    with (
        first.rest.listening() as listening,
        socket.create_connection(("127.0.0.1", number)) as caller,
    ):
        listening.accept()[0].close()  # this end closes first, and is remembered for a minute
        assert caller.recv(1) == b""
    second = Ports("127.0.0.1", None, number)
    second.hold()
    with pytest.raises(ServerError, match="Address already in use"):
        Ports("127.0.0.1", None, number).hold()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", number))
    with second.rest.listening():
        socket.create_connection(("127.0.0.1", number)).close()
