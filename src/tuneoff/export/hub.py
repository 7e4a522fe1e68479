"""Publishes a tuned contender on the Hugging Face hub: its weights, and a card with its results.

It uploads what `tuneoff export` writes, checked in the same way before anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneoff.errors import ConfigError, ProviderError
from tuneoff.export import source
from tuneoff.export.export import export_contender, open_scratch_folder
from tuneoff.training.model_card import is_folder

COMMIT_MESSAGE = "Upload with tuneoff"
# Files of an earlier upload to delete: transformers might load them instead of these.
OLD_FILES = ("adapter_*", "*.safetensors", "*.safetensors.index.json", "*.gguf")


@dataclass(frozen=True, slots=True)
class Published:
    """Where a contender was published."""

    repo: str
    url: str
    commit: str
    format: str
    private: bool
    files: dict[str, int]
    """Sizes in bytes by file name."""
    parity: dict[str, Any] | None
    """How the model's answers compare with the scored ones; None: they could not be compared."""


def publish(
    run: Path | str,
    contender: str,
    repo: str,
    *,
    format: str | None = None,
    public: bool = False,
    strict: bool = True,
    say: Callable[[str], object] = lambda line: None,
) -> Published:
    """Upload a tuned contender to the hub (or to the hub that `HF_ENDPOINT` names).

    Args:
        run: a run directory, or the data directory of `tuneoff serve`.
        repo: `OWNER/NAME`; created if missing, private unless `public`.
        format: `adapter`, `merged` or `gguf`. Default: the adapter, or the whole model where all
            parameters were tuned.
        strict: send nothing unless it answers as it was scored.
        say: called with each line for the user.

    Raises:
        ConfigError: there is no such model or no token, the name is invalid, or answers differ.
        ProviderError: the hub refuses, or does not answer.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"--repo: {error}") from None
    if "/" not in repo:
        raise ConfigError(f"--repo {repo}: give OWNER/NAME.")
    tuned = source.find_tuned(Path(run), contender)
    format = format or ("merged" if tuned.settings.method == "full" else "adapter")
    if format == "adapter" and is_folder(tuned.base):
        raise ConfigError(
            f"contender {contender}: its base is a folder on this machine, which nobody else has; "
            "publish it with --format merged."
        )
    if not get_token():
        raise ConfigError("HF_TOKEN is not set; export a token that may write, or `hf auth login`.")
    with open_scratch_folder(Path(run) / ".publish", str(run)) as folder:
        out = folder / "model"
        exported = export_contender(run, contender, format, out, strict=strict, say=say)
        api = HfApi(library_name="tuneoff")
        say(f"{contender}: sending {len(exported.files)} files to {repo}")
        commit, private = _upload(api, repo, out, public)
    return Published(
        repo=repo,
        url=str(commit.repo_url),
        commit=str(commit.oid),
        format=format,
        private=private,
        files=exported.files,
        parity=exported.parity,
    )


def _upload(api: Any, repo: str, folder: Path, public: bool) -> tuple[Any, bool]:
    """Upload the folder; return the commit, and whether the repository is private."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        private = bool(api.repo_info(repo).private)  # an existing repository stays as it was
        if not private and not public:
            raise ConfigError(
                f"--repo {repo}: everybody can see it already; give --public, or another name."
            )
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=COMMIT_MESSAGE,
            delete_patterns=list(OLD_FILES),
        )
        return commit, private
    except (HTTPError, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ProviderError(f"{api.endpoint}: {repo} could not be published: {first}") from None
