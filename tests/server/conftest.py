"""A running server on the fixture model, shared by the tests that only ask."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def quick_ends():
    """Servers of these tests end at once, without waiting for late callers; there are some fifty."""
    from tf_groupvit.server import running

    patch = pytest.MonkeyPatch()
    patch.setattr(running, "_DRAIN_SECONDS", 0.05)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def fixture_base_path(tmp_path_factory):
    """The base path of half_plus_two, with version 123."""
    from small_models import half_plus_two

    base_path = tmp_path_factory.mktemp("models") / "half_plus_two"
    base_path.mkdir()
    half_plus_two(base_path)
    return base_path


@pytest.fixture(scope="session")
def server(fixture_base_path, tmp_path_factory):
    """A server as the conformance cases assume it, on ports of its own."""
    from tf_groupvit.server.config_files import ServedModel
    from tf_groupvit.server.running import Server

    model = ServedModel("half_plus_two", str(fixture_base_path), labels={"stable": 123})
    with Server([model]) as running:
        yield running
