"""Sets of the library ``datasets``: by their name on the hub, or from a folder; every failure is one line."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from litdiffusion.data.files import last_line
from litdiffusion.errors import UserError, listed, nearest

SAVED = ("dataset_dict.json", "state.json")
"""Files that ``save_to_disk`` leaves in the folder of several splits, and of one."""
SLICE = "[+"
"""Characters of a part of a split, or of several: ``train[:10%]``, ``train+test``."""


def library() -> Any:
    """The package ``datasets``.

    Raises:
        UserError: it is missing.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"data=huggingface needs the package datasets ({error}); pip install datasets") from error
    return datasets


class HubSource(NamedTuple):
    """Where a set lies. Cache, token and offline mode are those of the library (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE).

    Args:
        name: name on the hub, "mnist" or "user/set".
        path: a folder that ``save_to_disk`` wrote, or one of Parquet or other files that the library reads; it is read
            in place of the set on the hub.
        config_name: one of the set's configurations.
        revision: branch, tag or commit on the hub.
        streaming: whether items are read one after the other, and none is kept on the disk.
    """

    name: str | None
    path: Path | None
    config_name: str | None
    revision: str | None
    streaming: bool

    def check(self) -> None:
        """Raises a `UserError` unless there is a folder at the path, or a name as the hub has them."""
        if self.name is None and self.path is None:
            raise UserError("data=huggingface needs data.name=USER/SET on the hub, or data.path=FOLDER; give one")
        if self.path is not None:
            if not self.path.is_dir():
                raise UserError(f"data.path={self.path}: there is no such folder; give one that save_to_disk wrote")
            return
        from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as readers
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        # The library would read a folder of this name here, also for a checkpoint that somebody else wrote.
        if self.name in readers or Path(self.name).exists():
            raise UserError(
                f"data.name={self.name} is no set of the hub; give files of this machine by data.path=FOLDER"
            )
        try:
            validate_repo_id(self.name)
        except HFValidationError as error:
            raise UserError(f"data.name={self.name} is no name of the hub ({error}); give USER/SET") from error

    @property
    def shown(self) -> str:
        """The set in messages."""
        return f"data.name={self.name}" if self.path is None else f"data.path={self.path}"


class Splits:
    """The splits of a set by name."""

    def __init__(self, source: HubSource) -> None:
        self.source = source

    @cached_property
    def whole(self) -> Mapping[str, Any]:
        """Every split; a saved set of one split has that one."""
        datasets, source = library(), self.source
        source.check()
        with in_one_line(source):
            if source.path is None or not any((source.path / name).is_file() for name in SAVED):
                return self._loaded()
            found = datasets.load_from_disk(str(source.path))
            parts = found if isinstance(found, Mapping) else {str(found.split or "train"): found}
            return {k: part.to_iterable_dataset() for k, part in parts.items()} if source.streaming else parts

    def split(self, name: str, key: str) -> Any:
        """A split, or what the library's words for parts of splits name; ``key`` is the config key in messages."""
        if name in self.whole:
            return self.whole[name]
        if not self.source.streaming and any(mark in name for mark in SLICE):
            with in_one_line(self.source):
                return self._parts(name)
        known = list(self.whole)
        raise UserError(
            f"{key}={name}: {self.source.shown} has the splits {listed(known)}{nearest(name, known)}; name one of them"
        )

    def _parts(self, words: str) -> Any:
        """``train[:10%]`` or ``train+test``, by the library's own rules, also of a saved set."""
        datasets, sizes = library(), {name: len(split) for name, split in self.whole.items()}
        found = datasets.ReadInstruction.from_spec(words).to_absolute(sizes)
        parts = [self.whole[part.splitname].select(range(part.from_ or 0, part.to)) for part in found]
        return datasets.concatenate_datasets(parts)

    def _loaded(self) -> Any:
        source = self.source
        words = {"name": source.config_name, "streaming": source.streaming}
        if source.path is None:
            return library().load_dataset(source.name, revision=source.revision, **words)
        return library().load_dataset(str(source.path), **words)


@contextmanager
def in_one_line(source: HubSource) -> Iterator[None]:
    """Turns the library's errors into a `UserError`."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    try:
        yield
    except UserError:
        raise
    except DatasetNotFoundError as error:
        raise UserError(
            f"{source.shown}: the hub has no such set for you ({last_line(error)}); check the name, and for a private "
            f"or gated one log in (hf auth login, or HF_TOKEN)"
        ) from error
    except ConnectionError as error:
        raise UserError(
            f"{source.shown} is not in the library's cache, and the hub is not reached ({last_line(error)}); connect "
            f"to the network, unset HF_HUB_OFFLINE, or give a folder by data.path"
        ) from error
    except (DatasetsError, OSError, RuntimeError, ValueError, TypeError, KeyError, ImportError) as error:
        if "scripts are no longer supported" in str(error):  # code of a stranger is never run
            raise UserError(
                f"{source.shown} is read by a script of its own, which is not run here; take a set of data files, or "
                f"convert it once with its own code and give data.path"
            ) from error
        raise UserError(
            f"{source.shown} cannot be read ({_cause(error)}); check data.config_name and data.split"
        ) from error


def _cause(error: BaseException) -> str:
    """The first cause of an error, since the library wraps them."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
