"""A folder, a file or a hub id in, a path on this disk out; what is on the hub is fetched through
huggingface_hub.
"""

import errno
import logging
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
COMPANIONS = (
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
DEMO = (
    Path(__file__).parent / "assets" / DEMO_NAME
)  # a small checkpoint that comes with the package
DEMO_WORDS = (
    "The demo checkpoint knows drawn scenes only: for photos, give another, e.g. --model"
    " nvidia/groupvit-gcc-yfcc."
)
_told: set[str] = set()  # what was said in this process, and is not logged again

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
    """Whether this is the demo checkpoint's folder; it is none of a segmenter that came from no
    folder (None).
    """
    return path is not None and Path(path).expanduser().resolve() == DEMO.resolve()


def warn_of_demo(
    path: str | os.PathLike[str] | None, say: Callable[[str], object] | None = None
) -> None:
    """Where ``path`` is the demo checkpoint, say what it cannot do: to ``say``, else to the log,
    once a process.
    """
    if not is_demo(path):
        return
    if say is not None:
        say(DEMO_WORDS)
    elif DEMO_WORDS not in _told:
        _log.warning(DEMO_WORDS)
    _told.add(DEMO_WORDS)


def resolve(
    folder_or_hub_id: str | os.PathLike[str],
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    weights: bool = True,
) -> Path:
    """The folder or file of that name, or the folder in the cache that a hub id
    ``organisation/name`` was fetched to.

    A path that exists always wins; else "demo" is the demo checkpoint. From the hub come config,
    tokenizer and preprocessor files and, unless ``weights`` is False, one kind of weights:
    safetensors, else TensorFlow's h5, else PyTorch's bin. With ``local_files_only``, or where the
    environment sets HF_HUB_OFFLINE, only the cache is asked; where the hub cannot be reached, the
    cache too, with a UserWarning.

    Errors: HubError for a path that is not there, and for a hub id that is unknown, forbidden,
        without weights, or neither reachable nor in the cache.
    """
    if not isinstance(folder_or_hub_id, str | os.PathLike):
        came = type(folder_or_hub_id).__name__
        raise HubError(
            f"The name of the checkpoint came as {came}: give a folder, or a hub id like"
            " 'organisation/name'."
        )
    name = os.fspath(folder_or_hub_id)
    path = Path(name).expanduser()
    if name and path.exists():  # Path("") is the current folder
        return path
    if name == DEMO_NAME:
        return demo_checkpoint()
    _refuse_path(name)
    return _Repository(name, revision, token, cache_dir, weights).folder(local_files_only)


def _refuse_path(name: str) -> None:
    if not name:
        raise HubError(
            "The name of the checkpoint is empty: give a folder, or a hub id like"
            " 'organisation/name'."
        )
    looks_like_path = (
        name.startswith((".", "/", "~"))
        or name.count("/") > 1
        or "\\" in name
        or FILE.fullmatch(name)
    )
    if looks_like_path:
        raise HubError(
            f"'{name}' is not there: expected a folder with a checkpoint, or a hub id like"
            " 'organisation/name'."
        )
    if not HUB_ID.fullmatch(name):
        raise HubError(
            f"'{name}' is neither a folder on this disk nor a hub id: expected a path, or"
            " 'organisation/name'."
        )


class _Repository:
    """One repository on the hub at one revision, and what of it is wanted."""

    def __init__(
        self, name: str, revision: str | None, token: Any, cache_dir: Any, weights: bool
    ) -> None:
        self.name, self.revision, self.token, self.weights = name, revision, token, weights
        self.cache_dir = os.fspath(cache_dir) if cache_dir is not None else None

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
        """Ask the hub what there is, and fetch what of it is wanted; what is in the cache already
        is not sent again.
        """
        from huggingface_hub import HfApi, hf_hub_download

        # model_info asks once; list_repo_files tries for 24 s before it says that there is no
        # network.
        about = HfApi().model_info(self.name, revision=self.revision, token=self.token)
        wanted = self._wanted([file.rfilename for file in about.siblings or []])
        if wanted is None:
            raise HubError(
                f"'{self._title()}' holds no weights that we read: expected {', '.join(WEIGHTS)}."
            )
        paths = [
            hf_hub_download(
                self.name, file, revision=self.revision, token=self.token, cache_dir=self.cache_dir
            )
            for file in wanted
        ]
        if not paths:
            raise HubError(
                f"'{self._title()}' holds none of the files of a checkpoint: expected at least"
                " config.json."
            )
        return Path(paths[-1]).parent

    def _cached(self, reason: str, cause: Exception | None = None) -> Path:
        """The folder in the cache, if it has what is wanted."""
        folder = self._snapshot()
        if folder is None or self._wanted([file.name for file in folder.iterdir()]) is None:
            raise HubError(
                f"'{self._title()}' is not in the cache and {reason}: fetch it once with the hub at"
                " hand, or give a folder."
            ) from cause
        return folder

    def _snapshot(self) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        for file in (*COMPANIONS, *WEIGHTS):
            found = try_to_load_from_cache(
                self.name, file, cache_dir=self.cache_dir, revision=self.revision
            )
            if isinstance(found, str):
                return Path(found).parent
        return None

    def _wanted(self, there: list[str]) -> list[str] | None:
        """What to fetch of the files that are there, weights last; None where there are no weights."""
        beside = [file for file in COMPANIONS if file in there]
        if not self.weights:
            return beside
        for file in WEIGHTS:
            if file in there:
                # Shards before their index: an index in the cache means that they are there too.
                shard = rf"[^/]+-of-[^/]+{re.escape(Path(file.removesuffix(INDEX)).suffix)}"
                shards = [name for name in there if re.fullmatch(shard, name)]
                return [*beside, *sorted(shards if file.endswith(INDEX) else []), file]
        return None


# Name in huggingface_hub.errors -> what to tell. The first that an error is an instance of counts.
REFUSALS = (
    (
        "GatedRepoError",
        (
            "access to it is gated; ask for it on its page, then log in with 'hf auth login' or"
            " pass token="
        ),
    ),
    (
        "RepositoryNotFoundError",
        "the hub has no such repository, or it is private; check the name, log in, or pass token=",
    ),
    ("RevisionNotFoundError", "it has no such revision; check revision="),
    ("RemoteEntryNotFoundError", "a file of it vanished while it was fetched; try again"),
    ("LocalTokenNotFoundError", "no token is stored; log in with 'hf auth login' or pass token="),
    ("HFValidationError", "the hub does not allow such a name; expected 'organisation/name'"),
)
DISK = {errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT}


def _refusal(error: Exception) -> str | None:
    """Why the hub, or the disk, says no; None where the hub did not answer. What is neither is a
    bug and raised.
    """
    from huggingface_hub import errors

    for name, told in REFUSALS:
        if isinstance(error, getattr(errors, name, ())):
            return told
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
