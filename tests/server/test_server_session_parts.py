"""A server's process imports what runs a SavedModel, and the rest of TensorFlow when it is used."""

import subprocess
import sys

import pytest
from served import ROOT
from test_server_warmup import predict_log, write

from tf_groupvit.server import session_parts
from tf_groupvit.server.session_parts import import_session_parts

PARTS = "from tf_groupvit.server.session_parts import import_session_parts as parts; import sys; "
SERVES = """
assert parts()
from tf_groupvit.server.running import Options, Server
with Server({"m": sys.argv[1]}, options=Options(background_warmup=True)) as server:
    for body in (b'{"instances": [1.0]}', b'{"instances": ["a"]}', b'{', b'{"instances": [1.0], "signature_name": "no"}'):
        print(server.rest("POST", "/v1/models/m:predict", body).status_code)
    print(server.rest("GET", "/v1/models/m/metadata").status_code)
    server.models.versions.close()
print([name for name in ("keras", "tensorflow._api", "jax", "pandas") if name in sys.modules])
"""
USES_THE_REST = """
assert parts() and not parts()
import tensorflow as tf
assert not hasattr(tf, "__wrapped__") and "keras" not in sys.modules
assert not hasattr(tf, "no_such_name") and tf.__version__ and tf.__doc__ is not None
print(int(tf.constant(3) + 2), tf.io.gfile.exists("."), "keras" in sys.modules)
"""


def printed(code: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PARTS + code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_server_loads_warms_up_and_answers_without_the_rest_of_tensorflow(fixture_base_path):
    folder = fixture_base_path / "123"
    file = write(folder, predict_log(x=[1.0]), predict_log("total", x=[1.0]))
    try:
        answers = printed(SERVES, str(fixture_base_path))
    finally:
        file.unlink()
    assert answers == ["200", "400", "400", "400", "200", "[]"]


def test_the_rest_of_tensorflow_is_imported_when_it_is_used():
    assert printed(USES_THE_REST) == ["5 True True"]


def test_nothing_is_done_where_tensorflow_is_imported_already():
    import tensorflow as tf

    assert not import_session_parts() and sys.modules["tensorflow"] is tf


@pytest.mark.parametrize("kind", ["folder", *session_parts._PLUGINS])
def test_plug_ins_of_tensorflow_are_loaded_by_its_whole_import(tmp_path, monkeypatch, kind):
    assert not session_parts._has_plugins([str(tmp_path)])
    if kind == "folder":
        (tmp_path / "tensorflow-plugins").mkdir()
    else:
        monkeypatch.setenv(kind, "1")
    assert session_parts._has_plugins([str(tmp_path)])
