"""Paths win, hub ids are fetched once, and every refusal is one line; the hub is a small server on
127.0.0.1.
"""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tf_groupvit.errors import HubError
from tf_groupvit.hub import resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secret"

CALL = """
import json, sys, warnings
from tf_groupvit.errors import HubError
from tf_groupvit.hub import resolve
for name, keywords in json.loads(sys.argv[1]):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            folder = resolve(name, **keywords)
            files = sorted(file.name for file in folder.iterdir())
            answer = {"folder": str(folder), "files": files}
        except HubError as error:
            answer = {"error": str(error)}
    answer["warnings"] = [str(one.message) for one in caught if one.category is UserWarning]
    print(json.dumps(answer))
"""


class Hub(ThreadingHTTPServer):
    """The routes of the hub that a download takes; ``repositories`` is {name: {file: bytes}}."""

    daemon_threads = True

    def __init__(self, repositories):
        super().__init__(("127.0.0.1", 0), Route)
        self.repositories = repositories
        self.requests: list[str] = []
        self.broken = False

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def store(self):
        return f"http://localhost:{self.server_address[1]}"  # another host, as the hub's store is


class Route(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.requests.append(f"{self.command} {self.path}")
        parts = self.path.split("?")[0].strip("/").split("/")
        if self.server.broken:
            return self.answer(503, b"down for a while")
        if parts[0] == "store":  # where large files are redirected to
            return self.answer(200, self.server.repositories[f"{parts[1]}/{parts[2]}"][parts[3]])
        if parts[0] == "api":  # models/OWNER/NAME[/revision/REVISION]
            return self.of_repository("/".join(parts[2:4]), (parts[5:] or ["main"])[0], None)
        return self.of_repository(
            "/".join(parts[:2]), parts[3], parts[4]
        )  # OWNER/NAME/resolve/REVISION/FILE

    def of_repository(self, repository, revision, file):
        files = self.server.repositories.get(repository)
        if repository == "some/gated" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        if files is None:
            return self.answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        if revision not in ("main", "v2", COMMIT):
            return self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if file is None:
            about = {
                "id": repository,
                "sha": COMMIT,
                "siblings": [{"rfilename": name} for name in files],
            }
            return self.answer(
                200, json.dumps(about).encode(), {"Content-Type": "application/json"}
            )
        return self.one_file(repository, file, files.get(file))

    def one_file(self, repository, file, data):
        if data is None:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        tag = f'"{abs(hash(data)):040x}"'
        if file.endswith(
            ".h5"
        ):  # as large files are: a redirect to a store that knows nothing of commits
            linked = {
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": tag,
                "X-Linked-Size": str(len(data)),
            }
            return self.answer(
                302, b"", linked | {"Location": f"{self.server.store}/store/{repository}/{file}"}
            )
        return self.answer(200, data, {"X-Repo-Commit": COMMIT, "ETag": tag})

    def answer(self, status, body, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


BESIDE = {
    "config.json": b"{}",
    "vocab.json": b"{}",
    "README.md": b"words",
    "flax_model.msgpack": b"no",
}
REPOSITORIES = {
    "some/all": (
        BESIDE | {"tf_model.h5": b"h5", "pytorch_model.bin": b"bin", "model.safetensors": b"safe"}
    ),
    "some/published": BESIDE | {"tf_model.h5": b"h5" * 50_000, "pytorch_model.bin": b"bin"},
    "some/bin": BESIDE | {"pytorch_model.bin": b"bin"},
    "some/shards": (
        BESIDE
        | {"model.safetensors.index.json": b"{}"}
        | {f"model-0000{part}-of-00002.safetensors": b"part" for part in (1, 2)}
    ),
    "some/weightless": BESIDE,
    "some/gated": BESIDE | {"model.safetensors": b"safe"},
}


@pytest.fixture
def hub():
    server = Hub(REPOSITORIES)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask_all(address, cache, questions, offline=False):
    """``resolve`` of each (name, keywords) in one process, which reads the hub's address from the
    environment as a user's does.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
    command = [sys.executable, "-c", CALL, json.dumps(questions)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()[-len(questions) :]]


def ask(address, cache, name, offline=False, **keywords):
    return ask_all(address, cache, [(name, keywords)], offline)[0]


def test_a_path_that_exists_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some" / "all").mkdir(parents=True)
    assert resolve("some/all") == Path("some/all")
    assert resolve(tmp_path) == tmp_path
    file = tmp_path / "weights.pth"
    file.write_bytes(b"")
    assert resolve(file) == file


def test_a_tilde_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve("~/model") == tmp_path / "model"


@pytest.mark.parametrize(
    "name",
    [
        "./gone",
        "../gone",
        "/gone",
        "~/gone",
        "a/b/c",
        "gone",
        "",
        "models/gone.pth",
        "a\\b",
        "a b/c",
        "org/na me",
        "-/x",
    ],
)
def test_what_is_no_path_and_no_hub_id_is_refused_without_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if not name:
        monkeypatch.setattr(
            Path, "exists", lambda self: False
        )  # the empty path is the working folder
    with pytest.raises(HubError) as caught:
        resolve(name)
    assert "\n" not in str(caught.value)
    assert "organization/name" in str(caught.value)


def test_importing_the_hub_is_light():
    code = (
        "import sys, tf_groupvit.hub; print(sorted({'huggingface_hub', 'numpy', 'tensorflow'} &"
        " set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "[]"
    )


SHARDS = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
FETCHED = {
    "some/all": ["model.safetensors"],
    "some/published": ["tf_model.h5"],
    "some/bin": ["pytorch_model.bin"],
    "some/shards": [*SHARDS, "model.safetensors.index.json"],
}


def test_one_kind_of_weights_is_fetched_and_then_found_without_the_hub(hub, tmp_path):
    names = [(name, {}) for name in FETCHED]
    answers = ask_all(hub.address, tmp_path, names)
    for (name, weights), answer in zip(FETCHED.items(), answers, strict=True):
        assert answer["files"] == sorted(["config.json", "vocab.json", *weights])
        for file in answer["files"]:
            content = (Path(answer["folder"]) / file).read_bytes()
            assert content == REPOSITORIES[name][file]
    asked = len(hub.requests)
    assert ask_all(hub.address, tmp_path, names, offline=True) == answers
    local = [(name, {"local_files_only": True}) for name in FETCHED]
    assert ask_all(hub.address, tmp_path, local) == answers
    assert len(hub.requests) == asked
    assert ask_all(hub.address, tmp_path, names) == answers
    again = [request for request in hub.requests[asked:] if request.startswith("GET")]
    assert not [request for request in again if "/resolve/" in request]


def test_a_progress_bar_is_shown(hub, tmp_path):
    environment = os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "0",
    }
    environment |= {
        "TQDM_POSITION": "-1"
    }  # huggingface_hub: show the bar where there is no terminal, too
    code = "from tf_groupvit.hub import resolve; resolve('some/published')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "tf_model.h5" in done.stderr
    assert "100%" in done.stderr


def test_without_weights_only_the_small_files_are_fetched(hub, tmp_path):
    assert ask(hub.address, tmp_path, "some/all", weights=False)["files"] == [
        "config.json",
        "vocab.json",
    ]
    answer = ask(hub.address, tmp_path, "some/all", offline=True)
    assert "not in the cache" in answer["error"]


def test_a_revision_and_a_cache_folder_of_ones_own(hub, tmp_path):
    answer = ask(
        hub.address, tmp_path / "home", "some/bin", revision="v2", cache_dir=str(tmp_path / "mine")
    )
    assert answer["folder"].startswith(str(tmp_path / "mine"))
    assert "/revision/v2" in "".join(hub.requests)


REFUSED = [
    ("some/unknown", {}, "no such repository"),
    ("some/gated", {}, "gated"),
    ("some/bin", {"revision": "v9"}, "no such revision"),
    ("some/weightless", {}, "no weights"),
    ("some/na--me", {}, "does not allow such a name"),
]


def test_a_refusal_is_one_line_that_says_why(hub, tmp_path):
    questions = [(name, keywords) for name, keywords, _ in REFUSED]
    for answer, (name, _, words) in zip(
        ask_all(hub.address, tmp_path, questions), REFUSED, strict=True
    ):
        assert words in answer["error"]
        assert name in answer["error"]
        assert "\n" not in answer["error"]


def test_a_token_opens_a_gated_repository_and_is_not_told(hub, tmp_path):
    assert "model.safetensors" in ask(hub.address, tmp_path, "some/gated", token=TOKEN)["files"]
    refused = ask(hub.address, tmp_path, "some/gated", token="hf_wrong")["error"]
    assert "hf_wrong" not in refused


def test_offline_and_not_in_the_cache_says_so(hub, tmp_path):
    error = ask(hub.address, tmp_path, "some/all", offline=True)["error"]
    assert "not in the cache" in error
    assert "HF_HUB_OFFLINE" in error
    assert not hub.requests


def test_a_hub_that_cannot_be_reached_leaves_the_cache_and_a_warning(hub, tmp_path):
    answer = ask(hub.address, tmp_path, "some/all")
    away = ask("http://127.0.0.1:9", tmp_path, "some/all")
    assert away["files"] == answer["files"]
    assert "taken from the cache" in away["warnings"][0]
    assert "cannot be reached" in ask("http://127.0.0.1:9", tmp_path, "some/bin")["error"]


def test_a_hub_that_is_down_leaves_the_cache(hub, tmp_path):
    answer = ask(hub.address, tmp_path, "some/all")
    hub.broken = True
    assert ask(hub.address, tmp_path, "some/all")["files"] == answer["files"]


@pytest.mark.network
@pytest.mark.slow
def test_the_published_repository_gives_its_small_files(tmp_path):
    answer = ask("", tmp_path, "nvidia/groupvit-gcc-yfcc", weights=False)
    if "cannot be reached" in answer.get("error", ""):
        pytest.skip("there is no network, or no hub behind it")
    assert "config.json" in answer["files"]


def test_the_demo_checkpoint_comes_with_the_package(monkeypatch, tmp_path):
    from tf_groupvit import hub

    assert (hub.demo_checkpoint() / "model.safetensors").exists()
    monkeypatch.setattr(hub, "DEMO", tmp_path)
    with pytest.raises(HubError, match="no demo checkpoint: name another"):
        hub.demo_checkpoint()


@pytest.mark.parametrize("value", [None, 3, ["a/b"]])
def test_what_is_no_path_at_all_is_told(value):
    with pytest.raises(HubError, match=f"is a {type(value).__name__}: give a folder"):
        resolve(value)


POINTER = "version https://git-lfs.example/spec/v1\noid sha256:00\nsize 3\n"
FOLDER = [
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
]
SAVED = ["segmenter.json", "classes.npz"]
ALONE = [
    "tf_model.h5",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "last.ckpt",
    "vocab.json",
    "merges.txt",
]


def _read_all(folder):
    """Everything that a segmenter reads of its folder, file by file."""
    from tf_groupvit.checkpoints.reading import read_checkpoint
    from tf_groupvit.config import GroupViTConfig
    from tf_groupvit.preprocessing.image import read_settings
    from tf_groupvit.preprocessing.tokenizer_files import read_folder
    from tf_groupvit.segmentation.segmenter import _read_choices

    GroupViTConfig.from_pretrained(folder)
    read_folder(folder)
    read_settings(folder)
    single = folder / "last.ckpt"
    read_checkpoint(single if single.exists() else folder)
    if (folder / "segmenter.json").exists():
        _read_choices(folder, {})


@pytest.mark.parametrize("name", [*FOLDER, *SAVED, *ALONE])
def test_a_pointer_of_git_lfs_is_told_in_every_file_of_a_checkpoint(name, tmp_path, golden):
    import json
    import shutil

    from tf_groupvit.errors import GroupViTError

    for file in FOLDER:
        shutil.copyfile(golden / "segmenter" / file, tmp_path / file)
    if name in SAVED:
        saved = {"classes": "classes.npz", "protocol": "paper", "mode": "whole", "background": None}
        (tmp_path / "segmenter.json").write_text(
            json.dumps({**saved, "size": None, "normalize": None})
        )
    if name in ("vocab.json", "merges.txt"):
        shutil.copytree(golden / "tokenizer/vocabularies/listed", tmp_path, dirs_exist_ok=True)
        (tmp_path / "tokenizer.json").unlink()
    elif name in ALONE:
        (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(GroupViTError, match=r"pointer of git-lfs.*'git lfs pull'") as caught:
        _read_all(tmp_path)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["captions.csv", "captions.txt", "a.tar", "a.tfrecord", "mask.png"]
)
def test_a_pointer_of_git_lfs_among_data_is_told(name, tmp_path):
    from tf_groupvit.errors import DatasetError
    from tf_groupvit.evaluation.masks import open_picture
    from tf_groupvit.training.caption_sources import open_pairs

    (tmp_path / name).write_text(POINTER)
    with pytest.raises(DatasetError, match=rf"{name} is a pointer of git-lfs.*'git lfs pull'"):
        open_picture(tmp_path / name) if name == "mask.png" else open_pairs(tmp_path)


def test_an_image_that_is_a_pointer_of_git_lfs_is_told():
    from tf_groupvit.errors import ImageError
    from tf_groupvit.preprocessing.image_reading import read_image

    with pytest.raises(ImageError, match="git lfs pull"):
        read_image(POINTER.encode())


def test_every_part_of_a_checkpoint_is_named_alike():
    from tf_groupvit import GroupViTConfig, ImageProcessor, Tokenizer
    from tf_groupvit.hub import demo_checkpoint

    demo = demo_checkpoint()
    assert GroupViTConfig.from_pretrained("demo") == GroupViTConfig.from_pretrained(demo)
    assert (
        ImageProcessor.from_pretrained("demo").to_dict()
        == ImageProcessor.from_pretrained(demo).to_dict()
    )
    assert (
        Tokenizer.from_pretrained("demo").vocab_size == Tokenizer.from_pretrained(demo).vocab_size
    )
    for part in (ImageProcessor, Tokenizer):
        with pytest.raises(HubError, match="'nowhere/' is neither a folder"):
            part.from_pretrained("nowhere/")
