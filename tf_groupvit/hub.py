"""Names of checkpoints, folders, files or hub ids, as paths on this disk.

huggingface_hub fetches what is on the hub, by its own rules of caching.
"""

import errno
import logging
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tf_groupvit.errors import HubError, one_line

INDEX = ".index.json"  # of shards, behind the name of the file that they make
# Files of weights in the order in which they are wanted: the first that is there is taken.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors" + INDEX,
    "tf_model.h5",
    "pytorch_model.bin",
    "pytorch_model.bin" + INDEX,
)
COMPANIONS = (  # what may lie in a folder with weights, and is fetched with them
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "segmenter.json",  # of a segmenter that was saved with its classes
    "classes.npz",
)

DEMO_NAME = "demo"
DEMO = Path(__file__).parent / "assets" / DEMO_NAME  # a small checkpoint in the package
DEMO_WORDS = (
    "The demo checkpoint knows drawn scenes only: for photos, give another, e.g. --model"
    " nvidia/groupvit-gcc-yfcc."
)
_logged: set[str] = set()  # what was logged in this process, and is not logged again

_log = logging.getLogger(__name__)

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILE = re.compile(r".*\.(safetensors|bin|h5|pth|tar|pt|ckpt|json)")


def demo_checkpoint() -> Path:
    """The folder of the demo checkpoint: small, trained on drawn scenes, there without a network.

    Raises HubError where this installation has none.
    """
    if not (DEMO / "config.json").exists():
        raise HubError(
            "This installation holds no demo checkpoint: name another, a folder or a hub id."
        )
    return DEMO


def is_demo(path: str | os.PathLike[str] | None) -> bool:
    """Whether this is the demo checkpoint's folder; None, where there is no folder, is not."""
    return path is not None and Path(path).expanduser().resolve() == DEMO.resolve()


def warn_of_demo(
    path: str | os.PathLike[str] | None, say: Callable[[str], object] | None = None
) -> None:
    """Say what the demo checkpoint cannot do, where ``path`` is that one.

    It is said to ``say``, or logged once a process.
    """
    if not is_demo(path):
        return
    if say is not None:
        say(DEMO_WORDS)
    elif DEMO_WORDS not in _logged:
        _log.warning(DEMO_WORDS)
    _logged.add(DEMO_WORDS)


def resolve(
    folder_or_hub_id: str | os.PathLike[str],
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    weights: bool = True,
) -> Path:
    """The path of that name, or the folder in the cache that holds the hub id's files.

    A path that exists always wins; else "demo" is the demo checkpoint. From the hub come config,
    tokenizer and preprocessor files and, unless ``weights`` is False, one kind of weights:
    safetensors, else TensorFlow's h5, else PyTorch's bin. With ``local_files_only``, or where the
    environment sets HF_HUB_OFFLINE, only the cache is asked; where the hub cannot be reached, the
    cache too, with a UserWarning.

    Errors: HubError for a path that is not there, and for a hub id that is unknown, forbidden,
        without weights, or neither reachable nor in the cache.
    """
    if not isinstance(folder_or_hub_id, str | os.PathLike):
        raise HubError(
            f"The name of the checkpoint is a {type(folder_or_hub_id).__name__}: give a folder, or"
            " a hub id like 'organization/name'."
        )
    name = os.fspath(folder_or_hub_id)
    path = Path(name).expanduser()
    if name and path.exists():  # Path("") is the current folder
        return path
    if name == DEMO_NAME:
        return demo_checkpoint()
    _refuse_path(name)
    cache = os.fspath(cache_dir) if cache_dir is not None else None
    return _Repository(name, revision, token, cache, weights).folder(local_files_only)


def _refuse_path(name: str) -> None:
    advice = "give a folder with a checkpoint, or a hub id like 'organization/name'."
    if not name:
        raise HubError(f"The name of the checkpoint is empty: {advice}")
    path_like = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    if path_like or FILE.fullmatch(name):
        raise HubError(f"'{name}' is not there: {advice}")
    if not HUB_ID.fullmatch(name):
        raise HubError(f"'{name}' is neither a folder on this disk nor a hub id: {advice}")


@dataclass(frozen=True)
class _Repository:
    """One repository on the hub at one revision, and whether its weights are wanted."""

    name: str
    revision: str | None
    token: str | bool | None
    cache_dir: str | None
    weights: bool

    def folder(self, local_files_only: bool) -> Path:
        from huggingface_hub import constants

        if local_files_only or constants.HF_HUB_OFFLINE:
            return self._cached("the hub is switched off (HF_HUB_OFFLINE or local_files_only)")
        try:
            return self._fetched()
        except HubError:
            raise
        except Exception as error:
            refusal = _refusal(error)
            if refusal is None:
                reason = one_line(f"{type(error).__name__}: {error}", 120)
                folder = self._cached(f"the hub cannot be reached ({reason})", error)
                warnings.warn(
                    f"The hub cannot be reached: '{self._title()}' is taken from the cache.",
                    stacklevel=4,
                )
                return folder
            raise HubError(f"'{self._title()}' cannot be fetched: {refusal}.") from error

    def _title(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"

    def _fetched(self) -> Path:
        """Fetch what is wanted; what is in the cache already is not sent again.

        File by file: what ``snapshot_download`` takes for a complete cache differs by its versions.
        """
        from huggingface_hub import HfApi, hf_hub_download

        # model_info asks once; list_repo_files tries for 24 s before it gives up.
        about = HfApi().model_info(self.name, revision=self.revision, token=self.token)
        wanted = self._wanted([file.rfilename for file in about.siblings or []])
        if not wanted:
            needed = f"weights that we read: expected {', '.join(WEIGHTS)}"
            if wanted is not None:
                needed = "files of a checkpoint: expected at least config.json"
            raise HubError(f"'{self._title()}' holds no {needed}.")
        paths = [
            hf_hub_download(
                self.name, file, revision=self.revision, token=self.token, cache_dir=self.cache_dir
            )
            for file in wanted
        ]
        return Path(paths[-1]).parent

    def _cached(self, reason: str, cause: Exception | None = None) -> Path:
        """The folder in the cache, if it has what is wanted."""
        from huggingface_hub import try_to_load_from_cache

        for file in (*COMPANIONS, *WEIGHTS):
            found = try_to_load_from_cache(self.name, file, self.cache_dir, self.revision)
            folder = Path(found).parent if isinstance(found, str) else None
            if folder and self._wanted([each.name for each in folder.iterdir()]) is not None:
                return folder
        raise HubError(
            f"'{self._title()}' is not in the cache and {reason}: fetch it once with a connection"
            " to the hub, or give a folder."
        ) from cause

    def _wanted(self, there: list[str]) -> list[str] | None:
        """What to fetch of the files that are there; None where there are no weights.

        Shards come before their index: an index in the cache means that they are there too.
        """
        companions = [file for file in COMPANIONS if file in there]
        if not self.weights:
            return companions
        for file in WEIGHTS:
            if file in there:
                whole = file.removesuffix(INDEX)
                shard = rf"[^/]+-of-[^/]+{re.escape(Path(whole).suffix)}"
                shards = sorted(
                    name for name in there if whole != file and re.fullmatch(shard, name)
                )
                return [*companions, *shards, file]
        return None


# Name in huggingface_hub.errors -> what to say. The first that an error is an instance of counts.
REFUSALS = {
    "GatedRepoError": "access to it is gated; ask for it on its page, then log in with"
    " 'hf auth login' or pass token=",
    "RepositoryNotFoundError": "the hub has no such repository, or it is private; check the name,"
    " log in, or pass token=",
    "RevisionNotFoundError": "it has no such revision; check revision=",
    "RemoteEntryNotFoundError": "a file of it vanished while it was fetched; try again",
    "LocalTokenNotFoundError": "no token is stored; log in with 'hf auth login' or pass token=",
    "HFValidationError": "the hub does not allow such a name; expected 'organization/name'",
}
DISK = {errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT}


def _refusal(error: Exception) -> str | None:
    """Why the hub, or the disk, says no; None where the hub did not answer.

    Any other error is a bug, and is raised.
    """
    from huggingface_hub import errors

    for name, words in REFUSALS.items():
        if isinstance(error, getattr(errors, name, ())):
            return words
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the hub refuses access ({status}); check the token, or log in with 'hf auth login'"
    if isinstance(error, OSError) and error.errno in DISK:
        return f"the cache cannot be written ({error.strerror})"
    if isinstance(error, OSError | ValueError) or type(error).__module__.split(".")[0].startswith(
        ("httpx", "httpcore")
    ):
        return None
    raise error
