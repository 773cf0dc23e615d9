"""Find weights by name, and share them: hf:user/name is a model on the Hugging Face Hub."""
from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from runtime.errors import DataError, UsageError
from runtime.packages import require_packages

PREFIX = "hf:"
INSTALL = "-r requirements-hub.txt"
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
REVISION = re.compile(r"[\w][\w./-]*", re.ASCII)  # a branch, a tag or a commit
NETWORKS = ("encoder", "depth", "pose_encoder", "pose", "predictive_mask")
# all that is downloaded: a repository may hold other, large files
SHARED_FILES = (*(name + ending for name in NETWORKS for ending in (".safetensors", ".pth")),
                "config.json", "camera.json", "frames_seen.json", "README.md", "LICENSE")
LOG_IN = "type: hf auth login"


def find_weights(name: str | Path) -> str | Path:
    """Return the weights folder of a name: downloaded for hf:user/name, else the name itself.

    Raises:
        UsageError: the name after hf: has another form.
        DataError: the model cannot be downloaded, or huggingface_hub is not installed.
    """
    text = str(name)
    return download_weights(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else name


def download_weights(name: str) -> Path:
    """Return the folder of a shared model in the cache of huggingface_hub, downloaded if it is new.

    Args:
        name: user/name, or user/name@revision. Without a network, what was downloaded before is
            found.

    Raises:
        UsageError: the name has another form.
        DataError: the model cannot be downloaded, or huggingface_hub is not installed.
    """
    repository, at, revision = name.partition("@")
    check_repository(repository)
    if at and not REVISION.fullmatch(revision):
        raise UsageError(f"{revision[:60]!r} is no revision; give a branch, a tag or a commit, as "
                         f"in {PREFIX}{repository}@main")
    hub = import_hub()
    with _faults_in_one_line(hub, PREFIX + name, "downloaded"):
        folder = Path(hub.snapshot_download(repository, revision=revision or None,
                                            allow_patterns=list(SHARED_FILES)))
    if not any((folder / f"encoder{ending}").is_file() for ending in (".safetensors", ".pth")):
        raise DataError(f"{PREFIX}{name} has no encoder.safetensors, so it is no model of this "
                        "project; check the name")
    return folder


def upload_folder(folder: Path, repository: str, private: bool) -> str:
    """Upload the files of a folder to the Hub, into a repository that is made if it is new.

    Returns:
        The address of the repository.

    Raises:
        DataError: the files cannot be uploaded, or huggingface_hub is not installed.
    """
    hub = import_hub()
    with _faults_in_one_line(hub, PREFIX + repository, "uploaded"):
        api = hub.HfApi()
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder,
                          commit_message="Upload weights")
    return str(url)


def check_repository(name: str) -> None:
    """Raise a UsageError unless a name has the form user/name."""
    if not REPOSITORY.fullmatch(name):
        raise UsageError(f"{name[:60]!r} is no name of a model on the Hugging Face Hub; expected "
                         "user/name")


def import_hub() -> ModuleType:
    """Import huggingface_hub, which only shared weights need.

    Raises:
        DataError: it is not installed.
    """
    require_packages(["huggingface_hub"], INSTALL)
    import huggingface_hub.errors
    return huggingface_hub


@contextmanager
def _faults_in_one_line(hub: ModuleType, name: str, done: str) -> Iterator[None]:
    """Turn every error of the Hub, of the network and of the disk into a DataError."""
    try:
        yield
    except Exception as error:  # those of the hub and of its http client share no base class
        raise DataError(f"{name} cannot be {done}: {_reason(hub.errors, error)}") from None


def _reason(errors: ModuleType, error: Exception) -> str:
    """Say why a request failed, and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"its owner must admit you first; ask on its page, then {LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return "it has no such revision; leave out what follows @"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no such model, or it is private; check the name, or {LOG_IN}"
    if status in (401, 403) or isinstance(error, errors.LocalTokenNotFoundError):
        return f"the Hub wants a token that may do this; {LOG_IN}"
    lines = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0][:200].rstrip('.')}; check the connection and the disk, and try again"
