"""Every transition of a version, with loaders that can be held still."""

import threading
import time
from pathlib import Path

import pytest

from tf_groupvit.server.config_files import ServedModel, VersionPolicy
from tf_groupvit.server.model_manager import MissingBasePath, ModelManager, versions_to_serve
from tf_groupvit.server.status import StatusError
from tf_groupvit.server.versions import Retries, State, Versions


class Loader:
    """Loads folders whose name does not begin with "broken"; holds each load until it is let go."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.closed: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, path: str):
        assert self.gate.wait(10)
        self.loaded.append(path)
        if "broken" in path:
            raise StatusError("NOT_FOUND", f"no model in {path}")
        return Pretended(self, path)


class Pretended:
    def __init__(self, loader: Loader, path: str) -> None:
        self.loader, self.path = loader, path

    def close(self) -> None:
        self.loader.closed.append(self.path)


@pytest.fixture
def loader():
    return Loader()


@pytest.fixture
def versions(loader):
    return Versions(loader, Retries(2, 0.01))


def states(versions, model="m"):
    return {number: version.state.name for number, version in versions.states(model).items()}


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def test_the_new_version_is_available_before_the_old_one_goes(versions, loader):
    versions.want("m", {1: "one"})
    versions.await_settled(["m"])
    loader.gate.clear()
    versions.want("m", {2: "two"})
    until(lambda: states(versions)[2] == "LOADING")
    assert states(versions) == {2: "LOADING", 1: "AVAILABLE"}
    with versions.use("m") as version:
        assert version.number == 1
    loader.gate.set()
    until(lambda: states(versions) == {2: "AVAILABLE", 1: "END"})
    assert loader.closed == ["one"]


def test_a_request_keeps_the_version_it_began_on(versions, loader):
    versions.want("m", {1: "one"})
    versions.await_settled(["m"])
    with versions.use("m") as version:
        versions.want("m", {2: "two"})
        until(lambda: states(versions)[1] == "UNLOADING")
        assert version.loaded.path == "one" and not loader.closed
        with versions.use("m") as later:
            assert later.number == 2
        with (
            pytest.raises(StatusError, match=r"Servable not found for request: Specific\(m, 1\)"),
            versions.use("m", 1),
        ):
            pass
    until(lambda: states(versions)[1] == "END")
    assert loader.closed == ["one"]


def test_a_version_is_freed_before_it_has_ended(loader):
    """A process that ends while TensorFlow frees a session is aborted."""
    seen = []

    class Freed(Pretended):
        def __del__(self):
            seen.append(states(versions)[1])

    versions = Versions(lambda path: Freed(loader, path))
    versions.want("m", {1: "one"})
    versions.await_settled(["m"])
    assert versions.close() and seen == ["UNLOADING"]


def test_what_is_left_to_do_for_a_version_is_told_to_stop_and_waited_for(versions, loader):
    def afterwards(stopped):
        assert states(versions)[1] == "AVAILABLE"
        until(stopped)
        held.append((states(versions)[1], list(loader.closed)))
        raise ValueError("a bug")

    held: list[tuple] = []
    versions = Versions(lambda path: with_rest(loader(path), afterwards))
    versions.want("m", {1: "one"})
    versions.await_settled(["m"])
    versions.want("m", {})
    until(lambda: states(versions) == {1: "END"})
    assert held == [("UNLOADING", [])] and loader.closed == ["one"]


def test_closing_does_not_wait_for_what_is_left_to_do(loader):
    go, begun = threading.Event(), threading.Event()

    def afterwards(stopped):
        begun.set()
        assert go.wait(10)

    versions = Versions(lambda path: with_rest(loader(path), afterwards))
    versions.want("m", {1: "one"})
    assert begun.wait(10)
    assert not versions.close() and loader.closed == []  # nor is a session closed under it
    go.set()
    until(lambda: loader.closed == ["one"])
    assert versions.close()


def with_rest(servable, afterwards):
    servable.afterwards = afterwards
    return servable


def test_a_broken_version_leaves_the_old_one_serving_and_is_not_tried_again(versions, loader):
    versions.want("m", {1: "one"})
    versions.await_settled(["m"])
    versions.want("m", {4: "broken"})
    until(lambda: states(versions)[4] == "END")
    versions.want("m", {4: "broken"})
    versions.want("m", {4: "broken"})
    assert states(versions) == {4: "END", 1: "AVAILABLE"}
    assert loader.loaded == ["one", "broken", "broken", "broken"]  # once, and two retries
    assert versions.states("m")[4].error.text == "no model in broken"


def test_a_failed_version_that_went_and_came_back_is_tried_again(versions, loader):
    versions.want("m", {4: "broken"})
    until(lambda: states(versions)[4] == "END")
    versions.want("m", {})
    versions.want("m", {4: "mended"})
    until(lambda: states(versions)[4] == "AVAILABLE")


def test_a_version_is_loading_through_all_retries_and_gives_up_when_unwanted(loader):
    versions = Versions(loader, Retries(5, 60.0))
    versions.want("m", {4: "broken"})
    until(lambda: loader.loaded == ["broken"])
    state = versions.states("m")[4]
    assert (state.state, state.error) == (State.LOADING, None)
    versions.want("m", {5: "five"})
    until(lambda: states(versions) == {5: "AVAILABLE", 4: "END"})


def test_emptying_the_base_path_unloads_everything(versions):
    versions.want("m", {1: "one", 2: "two"})
    until(lambda: states(versions) == {2: "AVAILABLE", 1: "AVAILABLE"})
    versions.want("m", {})
    until(lambda: states(versions) == {2: "END", 1: "END"})
    with pytest.raises(StatusError, match=r"Latest\(m\)"), versions.use("m"):
        pass


def test_removing_the_newest_version_rolls_back_to_the_next(versions):
    versions.want("m", {2: "two"})
    versions.await_settled(["m"])
    versions.want("m", {1: "one"})
    until(lambda: states(versions) == {2: "END", 1: "AVAILABLE"})


def test_requests_and_swaps_at_once_lose_nothing(versions):
    versions.want("m", {0: "zero"})
    versions.await_settled(["m"])
    stop, seen, errors = threading.Event(), set(), []

    def ask():
        while not stop.is_set():
            try:
                with versions.use("m") as version:
                    assert version.loaded is not None
                    seen.add(version.number)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(1, 20):
        versions.want("m", {number: str(number)})
        until(lambda number=number: states(versions)[number] == "AVAILABLE")
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors and 19 in seen


@pytest.mark.parametrize(
    ("name", "number"),
    [("1", 1), ("00000123", 123), ("-1", -1), ("9223372036854775807", 2**63 - 1), ("9223372036854775808", None),
     ("1a", None), ("v1", None), ("1.0", None), ("\u0661", None)],
)  # fmt: skip
def test_a_version_is_a_folder_whose_whole_name_is_an_int64(tmp_path, name, number):
    (tmp_path / name).mkdir()
    found = versions_to_serve(ServedModel("m", str(tmp_path)))
    assert found == ({} if number is None else {number: f"{tmp_path}/{name}"})


@pytest.mark.parametrize(
    ("policy", "numbers"),
    [(VersionPolicy(), {3}), (VersionPolicy(latest=2), {2, 3}), (VersionPolicy(latest=9), {1, 2, 3}),
     (VersionPolicy(all=True), {1, 2, 3}),
     (VersionPolicy(latest=0, specific=frozenset({1, 7})), {1})],
)  # fmt: skip
def test_a_policy_chooses_versions(tmp_path, policy, numbers):
    for name in ("1", "2", "3", "staging", "v9"):
        (tmp_path / name).mkdir()
    assert set(versions_to_serve(ServedModel("m", str(tmp_path), policy))) == numbers


def test_two_names_of_one_number_are_warned_about_and_the_last_wins(tmp_path, caplog):
    for name in ("1", "0001"):
        (tmp_path / name).mkdir()
    assert versions_to_serve(ServedModel("m", str(tmp_path))) == {1: f"{tmp_path}/1"}
    assert "one number" in caplog.text


def test_a_base_path_that_vanishes_unloads_nothing(tmp_path, versions):
    base_path = tmp_path / "m"
    (base_path / "1").mkdir(parents=True)
    models = ModelManager(versions, poll_seconds=0)
    models.start([ServedModel("m", str(base_path))])
    base_path.rename(tmp_path / "elsewhere")
    with pytest.raises(MissingBasePath):
        versions_to_serve(ServedModel("m", str(base_path)))
    models.poll()
    assert states(versions) == {1: "AVAILABLE"}


def test_waiting_for_versions_ends_when_one_comes(tmp_path, versions):
    models = ModelManager(versions, poll_seconds=0.01)
    started = threading.Thread(target=models.start, args=[[ServedModel("m", str(tmp_path))], True])
    started.start()
    started.join(0.2)
    assert started.is_alive()
    Path(tmp_path / "1").mkdir()
    started.join(10)
    assert not started.is_alive() and states(versions) == {1: "AVAILABLE"}
    models.stop()
