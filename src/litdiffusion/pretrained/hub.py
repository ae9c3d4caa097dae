"""Models on the Hugging Face hub, in the form of `exporting.export`: downloaded, and pushed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from litdiffusion.errors import UserError, first_line
from litdiffusion.pretrained.exporting import CODEC_WEIGHTS, CONFIG, WEIGHTS

PREFIX = "hf:"
"""Before the name of a model on the hub, where a path may stand too."""


def library() -> Any:
    """The package ``huggingface_hub``; a `UserError` if it is missing."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(f"the hub needs the package huggingface_hub ({error}); pip install huggingface_hub") from error
    return huggingface_hub


def downloaded(name: str) -> Path:
    """The folder of the model ``USER/NAME`` or ``USER/NAME@REVISION`` in the library's cache.

    Only the files of an export are fetched, and nothing in them is run; see SECURITY.md. Cache, token and offline mode
    are the library's own: HF_HOME, HF_TOKEN, HF_HUB_OFFLINE.

    Raises:
        UserError: the name is none, the hub is not reached, or it holds no such model for this user.
    """
    repo, _, revision = name.partition("@")
    check_name(repo, PREFIX)
    with in_one_line(f"{PREFIX}{name}"):
        files = [CONFIG, WEIGHTS, CODEC_WEIGHTS]
        folder = Path(library().snapshot_download(repo, revision=revision or None, allow_patterns=files))
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise UserError(
            f"{PREFIX}{name} holds no {CONFIG} and {WEIGHTS} of litdiffusion; take a model that was pushed by it "
            f"(litdiffusion export ckpt=... push=USER/NAME)"
        )
    return folder


def push(folder: Path, name: str) -> str:
    """Uploads the files of an export to the model ``USER/NAME``, which is made if it is new; returns its address.

    Raises:
        UserError: no token, no network, or a refusal of the hub.
    """
    check_token(name)
    with in_one_line(f"push={name}"):
        api = library().HfApi()
        address = api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Push the model of litdiffusion")
    return str(address)


def check_push(name: str) -> None:
    """What can be known before a training: the package, the name, and that the hub takes the token.

    Raises:
        UserError: see `push`.
    """
    check_token(name)
    with in_one_line(f"push={name}"):
        library().HfApi().whoami()


def check_token(name: str) -> None:
    """Refuses a name that is not ``USER/NAME``, a missing token and the library's offline mode."""
    hub = library()
    check_name(name, "push=")
    if hub.get_token() is None:
        raise UserError(f"push={name} needs a token of the hub with the right to write; hf auth login, or set HF_TOKEN")
    if hub.is_offline_mode():
        raise UserError(f"push={name} needs the network, but HF_HUB_OFFLINE is set; unset it, or push later")


def check_name(name: str, key: str) -> None:
    """Refuses what is no ``USER/NAME``; ``key`` stands before it in the message."""
    library()
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
        if name.count("/") != 1:
            raise ValueError("the user is missing")
    except ValueError as error:
        raise UserError(
            f"{key}{name} is no name of a model on the hub ({first_line(error)}); give USER/NAME"
        ) from error


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """Turns the library's errors into a `UserError`; ``what`` was asked for."""
    from huggingface_hub import errors

    try:
        yield
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
        raise UserError(
            f"{what}: the hub has no such model for you; check the name, and for a private or gated one log in "
            f"(hf auth login, or HF_TOKEN)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{what}: the model has no such revision; name a branch, tag or commit after @") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        remedy = "log in with a token that may write (hf auth login)" if status in (401, 403) else "try again later"
        raise UserError(f"{what}: the hub answered {status or first_line(error)}; {remedy}") from error
    except Exception as error:  # without a network each transport has errors of its own
        if not isinstance(error, OSError) and not type(error).__module__.startswith(("httpx", "huggingface_hub")):
            raise
        raise UserError(
            f"{what}: the hub is not reached ({first_line(error)[:120]}); connect to the network, unset "
            f"HF_HUB_OFFLINE, or give a folder"
        ) from error
