"""Reloads, labels and config files: what HandleReloadConfigRequest takes and refuses."""

import os
import threading

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig
from test_server_versions import Loader, states, until

from tf_groupvit.errors import ConfigError, ServerError
from tf_groupvit.server import model_manager, threads
from tf_groupvit.server.config_files import (
    ServedModel,
    VersionPolicy,
    prometheus_path,
    read_config,
    read_models,
)
from tf_groupvit.server.model_manager import ModelManager, versions_to_serve
from tf_groupvit.server.status import StatusError
from tf_groupvit.server.versions import Retries, Versions

ODD = os.fsdecode(b"caf\xe9\n\x1b[31m")
FORGED = "m\n2026-01-01 00:00:00,000 INFO all is well\x1b[2J"


@pytest.fixture
def base_path(tmp_path):
    """Two models, `a` with versions 1 and 2, `b` with a broken version 1."""
    for folder in ("a/1", "a/2", "b/1_broken"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def config(text: str) -> ModelServerConfig:
    return text_format.Parse(text, ModelServerConfig())


def one(name: str, path, extra: str = "", platform: str = 'model_platform: "tensorflow"') -> str:
    return (
        f'model_config_list {{ config {{ name: "{name}" base_path: "{path}" {platform} {extra}'
        " } }"
    )


@pytest.fixture
def models(base_path):
    served = ModelManager(Versions(Loader(), Retries(0, 0.0)), poll_seconds=0.01)
    served.start([ServedModel("a", str(base_path / "a"))])
    yield served
    served.stop()


def refusal(models, text: str) -> tuple[str, str]:
    with pytest.raises(StatusError) as raised:
        models.reload(config(text))
    return raised.value.code, raised.value.text


def test_a_reload_replaces_the_whole_config_and_waits_for_new_models(models, base_path):
    models.reload(config(one("c", base_path / "a")))
    assert models.names == ["c"]
    assert states(models.versions, "c") == {2: "AVAILABLE"}
    until(lambda: states(models.versions, "a") == {2: "END"})


def test_a_reload_changes_the_policy(models, base_path):
    models.reload(config(one("a", base_path / "a", "model_version_policy { all {} }")))
    until(lambda: states(models.versions, "a") == {2: "AVAILABLE", 1: "AVAILABLE"})
    models.reload(
        config(one("a", base_path / "a", "model_version_policy { specific { versions: 1 } }"))
    )
    until(lambda: states(models.versions, "a") == {2: "END", 1: "AVAILABLE"})


def test_a_new_model_that_fails_is_named_with_its_error(models, base_path):
    (base_path / "broken" / "1").mkdir(parents=True)
    code, text = refusal(models, one("b", base_path / "broken"))
    assert code == "UNKNOWN"
    assert (
        text == "1 model(s) did not become available: {{{name: b version: 1} due to error:"
        f" NOT_FOUND: no model in {base_path}/broken/1}}, }}"
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
             "supported"),
        (one("a", "relative"), "Expected model a to have an absolute path or URI; got base_path()=relative"),
        (one("n", "/p", platform=""), "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
                                      "ModelServerConfig::model_platform, model name is n"),
        (one("a", "/p", platform='model_platform: "other"'), "Illegal to change a model's platform. For model a "
         "platform was tensorflow and new platform requested is other"),
        (one("n", "/p", platform='model_platform: "other"'), "Model n requests unsupported platform other"),
    ],
)  # fmt: skip
def test_configs_are_refused_in_the_servers_words_and_change_nothing(models, text, wanted):
    assert refusal(models, text) == ("INVALID_ARGUMENT", wanted)
    assert models.names == ["a"]


def test_a_label_must_point_at_an_available_version(models, base_path):
    wanted = (
        "Request to assign label to version 1 of model a, which is not currently available for"
        " inference"
    )
    label = 'version_labels { key: "old" value: 1 }'
    assert refusal(models, one("a", base_path / "a", label)) == ("FAILED_PRECONDITION", wanted)
    models.reload(config(one("a", base_path / "a", 'version_labels { key: "new" value: 2 }')))
    with models.use_named("a", None, "new") as version:
        assert version.number == 2
    with pytest.raises(StatusError, match="Unrecognized servable version label: old"):
        models.use_named("a", None, "old")


def test_with_the_flag_a_new_label_may_be_early_but_an_old_one_may_not_move(base_path):
    served = ModelManager(
        Versions(Loader(), Retries(0, 0.0)), poll_seconds=0, labels_before_loading=True
    )
    served.start([ServedModel("a", str(base_path / "a"), labels={"x": 2})])
    served.reload(
        config(
            one(
                "a",
                base_path / "a",
                'version_labels { key: "x" value: 2 } version_labels { key: "y" value: 9 }',
            )
        )
    )
    with pytest.raises(StatusError, match="assign label to version 9"):
        served.reload(config(one("a", base_path / "a", 'version_labels { key: "x" value: 9 }')))
    served.stop()


def test_a_reload_to_a_missing_base_path_says_so(models):
    code, text = refusal(models, one("n", "/nowhere/n"))
    assert (
        code == "INVALID_ARGUMENT" and "Could not find base path /nowhere/n for servable n" in text
    )


def test_a_start_without_versions_or_with_a_broken_one_is_one_line(tmp_path):
    for folder, text in (
        (tmp_path, "No versions of servable m found"),
        (tmp_path / "no", "Could not find base path"),
    ):
        served = ModelManager(Versions(Loader(), Retries(0, 0.0)), poll_seconds=0)
        with pytest.raises(ServerError, match=text):
            served.start([ServedModel("m", str(folder))])
    (tmp_path / "broken" / "3").mkdir(parents=True)
    served = ModelManager(Versions(Loader(), Retries(0, 0.0)), poll_seconds=0)
    with pytest.raises(ServerError) as raised:
        served.start([ServedModel("m", str(tmp_path / "broken"))])
    assert str(raised.value).startswith(
        "Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available: {{{name: m"
        " version: 3} due to error: NOT_FOUND: no model"
    )


def test_a_reload_behind_a_poll_ends_at_its_deadline(models, base_path, monkeypatch):
    looks, go = threading.Event(), threading.Event()

    def without_end(model, warn):
        looks.set()
        assert go.wait(10)
        return {2: str(base_path / "a" / "2")}

    with monkeypatch.context() as patched:
        patched.setattr(model_manager, "versions_to_serve", without_end)
        assert looks.wait(10)
        with pytest.raises(StatusError) as refused:
            models.reload(config(one("a", base_path / "a")), 0.01)
        go.set()
    assert refused.value.code == "DEADLINE_EXCEEDED"
    models.reload(config(one("c", base_path / "a")), 10.0)
    assert models.names == ["c"]


def test_a_model_config_file_is_read(tmp_path):
    file = tmp_path / "models.config"
    file.write_text(
        one(
            "m",
            "/models/m",
            'model_version_policy { latest { num_versions: 3 } } version_labels { key: "l"'
            " value: 7 }",
        )
    )
    assert read_models(file) == [ServedModel("m", "/models/m", VersionPolicy(latest=3), {"l": 7})]


@pytest.mark.parametrize(
    "text", ["model_config_list { config { nmae: 'x' } }", "", one("m", "relative")]
)
def test_a_wrong_model_config_file_is_a_config_error_in_one_line(tmp_path, text):
    file = tmp_path / "models.config"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_models(file)
    assert "\n" not in str(raised.value) and str(file) in str(raised.value)


def test_monitoring_and_ssl_configs_are_the_real_servers_text_protos(tmp_path):
    file = tmp_path / "monitoring.config"
    file.write_text('prometheus_config { enable: true path: "/metrics" }')
    assert prometheus_path(file) == "/metrics"
    file.write_text("prometheus_config { enable: true }")
    assert prometheus_path(file) == "/monitoring/prometheus/metrics"
    file.write_text("prometheus_config {}")
    assert prometheus_path(file) is None and prometheus_path(None) is None
    file.write_text('server_key: "k" server_cert: "c" custom_ca: "a" client_verify: true')
    ssl = read_config(file, "SSLConfig")
    assert (ssl.server_key, ssl.server_cert, ssl.custom_ca, ssl.client_verify) == (
        "k",
        "c",
        "a",
        True,
    )


# Polling


@pytest.fixture
def one_version(tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    return tmp_path / "m"


@pytest.fixture
def polled(one_version, monkeypatch):
    monkeypatch.setattr(threads, "PAUSE", 0.001)
    served = ModelManager(Versions(Loader(), Retries(0, 0.0)), poll_seconds=0.001)
    yield served
    served.stop()


def test_a_folder_whose_name_is_not_utf8_is_named_once_and_ignored(one_version, polled, caplog):
    (one_version / ODD).mkdir()
    assert versions_to_serve(ServedModel("m", str(one_version))) == {1: f"{one_version}/1"}
    caplog.clear()
    polled.start([ServedModel("m", str(one_version))])
    (one_version / "2").mkdir()
    until(lambda: states(polled.versions) == {2: "AVAILABLE", 1: "END"})  # polling goes on
    warnings = [
        record.getMessage() for record in caplog.records if "Ignored" in record.getMessage()
    ]
    assert warnings == [
        rf"Ignored caf\xe9\n\x1b[31m below {one_version}: its name is neither a number nor UTF-8."
    ]


def test_a_fault_in_looking_at_one_model_is_said_once_and_stops_no_other(
    one_version, polled, monkeypatch, caplog
):
    looked = model_manager.versions_to_serve
    monkeypatch.setattr(
        model_manager,
        "versions_to_serve",
        lambda model, warn: looked(model, warn) if model.name == "m" else 1 // 0,
    )
    with pytest.raises(
        ServerError, match="Looking for versions of servable a failed: ZeroDivisionError: integer"
    ):
        polled.start([ServedModel("a", "/nowhere"), ServedModel("m", str(one_version))])
    polled.poll()
    assert 1 in states(polled.versions)
    assert caplog.text.count("ZeroDivisionError: integer division or modulo by zero.") == 1
    assert "Traceback" in caplog.text


def test_polling_that_ends_by_an_exception_starts_again_loudly(
    one_version, polled, monkeypatch, caplog
):
    polled.start([ServedModel("m", str(one_version))])
    poll, failed = polled.poll, threading.Event()

    def fails_once():
        if not failed.is_set():
            failed.set()
            raise RuntimeError("injected")
        poll()

    monkeypatch.setattr(polled, "poll", fails_once)
    assert failed.wait(10)
    (one_version / "2").mkdir()
    until(lambda: states(polled.versions) == {2: "AVAILABLE", 1: "END"})
    assert "The thread poll-models ended by an exception; it starts again" in caplog.text
    assert "RuntimeError: injected" in caplog.text


def test_a_version_whose_thread_cannot_be_started_is_tried_again(
    one_version, polled, monkeypatch, caplog
):
    start = threading.Thread.start

    def none_left(thread):
        if thread.name == "load":
            raise RuntimeError("can't start new thread")
        start(thread)

    polled.start([ServedModel("m", str(one_version))])
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        (one_version / "2").mkdir()
        until(lambda: "can't start new thread" in caplog.text)
        assert states(polled.versions) == {1: "AVAILABLE"}
    until(lambda: states(polled.versions) == {2: "AVAILABLE", 1: "END"})


def test_a_version_that_cannot_be_closed_ends_all_the_same(
    one_version, polled, monkeypatch, caplog
):
    polled.start([ServedModel("m", str(one_version))])
    with polled.versions.use("m") as version:
        monkeypatch.setattr(version.servable, "close", lambda: 1 // 0)
    (one_version / "2").mkdir()
    until(lambda: states(polled.versions) == {2: "AVAILABLE", 1: "END"})
    assert "failed in an unexpected way" in caplog.text and "ZeroDivisionError" in caplog.text


def test_names_of_a_reload_forge_no_line(one_version, polled, caplog):
    caplog.set_level("INFO")
    polled.start([ServedModel("m", str(one_version))])
    named = ModelServerConfig()
    for name, path in ((FORGED, str(one_version)), ("gone", "/no/\n\x1b" + "x" * 5000)):
        named.model_config_list.config.add(name=name, base_path=path, model_platform="tensorflow")
    with pytest.raises(StatusError, match="Could not find base path"):
        polled.reload(named)
    until(lambda: states(polled.versions, FORGED) == {1: "AVAILABLE"})
    said = [record.getMessage() for record in caplog.records]
    assert any(r"m\n2026" in text for text in said)
    assert all(text.isprintable() and len(text) < 1500 for text in said)
