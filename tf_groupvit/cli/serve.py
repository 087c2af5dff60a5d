"""The command `tf-groupvit serve`."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from tf_groupvit.cli.kernels import give_back_memory, prefer_onednn
from tf_groupvit.errors import ConfigError, InputError, ServerError
from tf_groupvit.memory import share_pools
from tf_groupvit.server.options import Options
from tf_groupvit.server.ports import Ports
from tf_groupvit.server.status import loggable

if TYPE_CHECKING:
    from tf_groupvit.server.config_files import ServedModel

_FILE = click.Path(exists=True, dir_okay=False)


@click.command("serve", context_settings={"show_default": True})
@click.argument("base_path", required=False, type=click.Path())
@click.option(
    "--model-config-file", type=_FILE, help="Several models: a ModelServerConfig text proto."
)
@click.option("--model-name", default="groupvit", help="Name of the model at BASE_PATH.")
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=8500, help="gRPC port; 0 for any.")
@click.option("--rest-api-port", default=8501, help="REST port; 0 for any.")
@click.option(
    "--monitoring-config-file", type=_FILE, help="MonitoringConfig text proto: Prometheus metrics."
)
@click.option("--ssl-config-file", type=_FILE, help="SSLConfig text proto: TLS for gRPC.")
@click.option("--rest-api-timeout-in-ms", default=30_000, help="For a REST request; 0 for none.")
@click.option(
    "--rest-api-enable-cors-support", is_flag=True, help="Add CORS headers to REST answers."
)
@click.option("--file-system-poll-wait-seconds", default=1.0, help="Between looks at base paths.")
@click.option("--max-num-load-retries", default=5, help="Further attempts at a failed load.")
@click.option("--load-retry-interval-micros", default=60_000_000, help="Between two attempts.")
@click.option(
    "--allow-version-labels-for-unavailable-models", is_flag=True, help="New labels may be early."
)
@click.option("--saved-model-tags", default="serve", help="Comma-separated.")
@click.option("--enable-model-warmup/--no-enable-model-warmup", default=True)
@click.option("--num-request-iterations-for-warmup", default=0, help="Of each record; 0: one.")
@click.option(
    "--background-warmup/--no-background-warmup",
    default=True,
    help="Serve when the default signature has answered once; warm up the others meanwhile.",
)
@click.option("--tensorflow-intra-op-parallelism", default=0, help="Threads; 0 chooses.")
@click.option("--tensorflow-inter-op-parallelism", default=0, help="Threads; 0 chooses.")
@click.option("--enable-batching/--no-enable-batching", default=False, help="Merge requests.")
@click.option(
    "--batching-parameters-file", type=_FILE, help="BatchingParameters text proto, for all models."
)
@click.option(
    "--enable-per-model-batching-parameters",
    is_flag=True,
    help="Batch only versions with a batching_params.pbtxt.",
)
@click.option("--max-in-flight", default=0, help="Requests at work; 0: four for each CPU.")
@click.option("--max-queued", default=64, help="Requests waiting; beyond them 429.")
@click.option(
    "--max-pixels-at-work",
    default=100_000_000,
    help=(
        "Of all requests at work together, from their pictures' headers; a larger one runs alone."
        " 0: any number."
    ),
)
@click.option("--max-request-bytes", default=2**28, help="Largest request, unpacked; both fronts.")
@click.option("--max-json-tokens", default=2**24, help="Of a REST body; beyond them 400.")
@click.option("--max-receiving", default=256, help="Requests arriving at once, on each front.")
@click.option("--max-receiving-bytes", default=2**30, help="Of all REST requests, until answered.")
@click.option("--max-connections", default=1000, help="Open at once over REST.")
@click.option(
    "--receive-timeout-seconds",
    default=60.0,
    help="For a request to arrive whole; quiet connections are closed after it.",
)
@click.option(
    "--wait-for-versions",
    is_flag=True,
    help="Wait for a base path to get a version, as TF Serving does.",
)
@click.option("--shutdown-grace-seconds", default=30.0, help="For requests under way at SIGTERM.")
@click.option(
    "--log-level",
    default="info",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="info has a line per request.",
)
@click.option("--json-logs", is_flag=True, help="Logs and ports as one JSON object a line.")
def command(base_path: str | None, model_config_file: str | None, **flags: Any) -> None:
    """Serve SavedModels as tensorflow_model_server does: same ports, requests, answers, errors.

    BASE_PATH holds numbered versions of one model (models/groupvit/1/saved_model.pb); several
    models come from --model-config-file. Meant for development, tests and small deployments.
    """
    _check_paths(base_path, model_config_file, flags["wait_for_versions"])
    models = _models(base_path, model_config_file, flags.pop("model_name"))
    held = Ports(flags.pop("host"), flags.pop("port"), flags.pop("rest_api_port"))
    log_level, json_logs = flags.pop("log_level"), flags.pop("json_logs")
    options = Options(**flags)
    with held as ports:
        _serve(models, ports, base_path or model_config_file or "", log_level, json_logs, options)


def _serve(
    models: "dict[str, str] | list[ServedModel]",
    ports: Ports,
    source: str,
    log_level: str,
    json_logs: bool,
    options: Options,
) -> None:
    """Load TensorFlow and the models, then serve on ports that are held."""
    prefer_onednn()
    give_back_memory()
    share_pools()
    started = time.monotonic()

    def say(text: str) -> None:
        if not json_logs:
            click.echo(text, err=True)

    say("Loading TensorFlow ...")
    from tf_groupvit.server.session_parts import import_session_parts

    import_session_parts()
    from tf_groupvit.server.lifecycle import serve_until_stopped
    from tf_groupvit.server.monitoring import configure_logging

    configure_logging(log_level, json_logs)
    say(f"Loaded TensorFlow in {time.monotonic() - started:.1f} s; loading {loggable(source)} ...")

    def announce(host: str, port: int, rest_port: int, names: list[str]) -> None:
        say(f"Ready {time.monotonic() - started:.1f} s after the start.")
        _announce(host, port, rest_port, names, json_logs)

    serve_until_stopped(models, ports, announce, options)


def _check_paths(base_path: str | None, model_config_file: str | None, wait: bool) -> None:
    """Raise what is wrong with the paths before TensorFlow is loaded."""
    if (base_path is None) == (model_config_file is None):
        raise InputError(
            "Give either a BASE_PATH or a --model-config-file, e.g. tf-groupvit serve"
            " models/groupvit."
        )
    if base_path is None or wait or "://" in base_path:
        return
    folder, shown = Path(base_path), loggable(base_path)
    try:
        if (folder / "saved_model.pb").is_file():
            parent = loggable(str(folder.absolute().parent))
            raise ServerError(f"{shown} is a version itself: serve its parent, {parent}.")
        if not folder.is_dir():
            raise ServerError(
                f"No such folder: {shown}. A base path holds numbered versions, e.g. {shown}/1/."
            )
        found = any(child.name.isdecimal() for child in folder.iterdir())
    except OSError as error:
        raise ServerError(
            f"{shown} cannot be read as a base path: {error.strerror or error}."
        ) from error
    if not found:
        raise ServerError(
            f"No versions found under base path {shown}: expected numbered folders, e.g."
            f" {shown}/1/saved_model.pb."
        )


def _models(
    base_path: str | None, model_config_file: str | None, name: str
) -> "dict[str, str] | list[ServedModel]":
    from tf_groupvit.server.config_files import check_model, read_models

    if model_config_file is not None:
        models = read_models(model_config_file)
        if not models:
            raise ConfigError(f"{model_config_file} lists no models.")
        return models
    path = base_path or ""
    check_model(name, path)
    return {name: path}


def _announce(host: str, port: int, rest_port: int, names: list[str], as_json: bool) -> None:
    if as_json:
        event = {"event": "ready", "models": names, "port": port, "rest_api_port": rest_port}
        click.echo(json.dumps(event))
        return
    click.echo(f"Serving {', '.join(map(loggable, names))}; stop with Ctrl-C")
    click.echo(f"gRPC: {host}:{port}")
    click.echo(f"REST: http://{host}:{rest_port}/v1/models/{quote(names[0], safe='')}")
