"""The config as it is stored, printed and sent: `public` is the only function that makes it. Imports no torch."""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litdiffusion.config.environment import read_word, reading
from litdiffusion.config.keys import Use, decides
from litdiffusion.config.secrets import has_form, looks_secret, masked, masked_word, remember
from litdiffusion.errors import UserError


def public(cfg: DictConfig) -> dict[str, Any]:
    """The resolved config as plain values, without secrets (`secrets`).

    Text from the environment stays the reference that was typed, such as ``${oc.env:USER}``. Numbers, true, false and
    null are values. So is everything under the keys of `Use.PLAIN`, from which a checkpoint is rebuilt.

    Raises:
        UserError: a secret under a key of `Use.PLAIN`.
    """
    return _Writer().public(cfg)


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """The composed config as `public` makes it, without ``derived``."""
    return config_and_digests(cfg)[0]


def config_and_digests(cfg: DictConfig) -> tuple[dict[str, Any], dict[str, str]]:
    """`plain_config`, and dotted key -> digest of its text from the environment, for keys that identify the run.

    A secret has no digest. A digest has 16 bits: enough to notice another value, and too few to guess the value from.
    """
    writer = _Writer()
    config = writer.public(_without_derived(cfg))
    return config, {key: digest(key, text) for key, text in writer.texts.items() if decides(key, Use.RUN)}


def _without_derived(cfg: DictConfig) -> DictConfig:
    written = OmegaConf.to_container(cfg, resolve=False)
    written.pop("derived", None)
    return OmegaConf.create(_keep_derived(written))


def _keep_derived(node: Any) -> Any:
    """Escapes references to ``derived``, whose values are not known before the run is built."""
    if isinstance(node, dict):
        return {key: _keep_derived(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_keep_derived(value) for value in node]
    return node.replace("${", "\\${") if isinstance(node, str) and "${derived." in node else node


def digest(key: str, text: str) -> str:
    """The digest of a text at a dotted key, which is its salt."""
    return hashlib.sha256(f"{key}\0{text}".encode()).hexdigest()[:4]


def public_words(words: Iterable[str]) -> list[str]:
    """The overrides of a command line without secrets; a number from the environment is written out."""
    return [masked_word(read_word(word)) for word in words]


@contextmanager
def masked_command() -> Iterator[None]:
    """Masks secrets in ``sys.argv`` inside the block, in which a dashboard reads it."""
    words = sys.argv[1:]
    sys.argv[1:] = public_words(words)
    try:
        yield
    finally:
        sys.argv[1:] = words


def remember_secrets(node: DictConfig | ListConfig, secret: bool = False) -> None:
    """Masks the values under keys that look like secrets in every text from now on."""
    raw = OmegaConf.to_container(node, resolve=False)
    for key in raw if isinstance(raw, dict) else range(len(raw)):
        hidden = secret or looks_secret(key)
        if isinstance(raw[key], dict | list):
            remember_secrets(node[key], hidden and "_target_" not in raw[key])
        elif hidden and raw[key] not in (None, "???"):
            with suppress(OmegaConfBaseException):  # whoever reads the value reports the error
                remember(node[key])


class _Writer:
    """Writes a config as plain values; collects its texts from the environment and remembers its secrets."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def public(self, cfg: DictConfig) -> dict[str, Any]:
        """A config by the rule of the function `public`."""
        written = self._section(cfg, OmegaConf.to_container(cfg, resolve=False), "", False)
        hidden = masked(written)
        _refuse_masked(written, hidden, "")
        return hidden

    def _section(self, node: DictConfig | ListConfig, raw: Any, path: str, secret: bool) -> Any:
        """All values of a node, of which ``raw`` holds the unresolved ones."""
        if isinstance(raw, list):
            return [self._value(value, node, i, f"{path}.{i}", secret) for i, value in enumerate(raw)]
        if not isinstance(raw, dict):
            return raw
        secret = secret and "_target_" not in raw
        return {
            key: self._value(value, node, key, f"{path}.{key}".lstrip("."), secret or looks_secret(key))
            for key, value in raw.items()
        }

    def _value(self, raw: Any, parent: DictConfig | ListConfig, key: Any, path: str, secret: bool) -> Any:
        if isinstance(raw, dict | list):
            return self._section(parent[key], raw, path, secret)
        if not isinstance(raw, str) or "${" not in raw:
            if secret and raw != "???":
                remember(raw)
            return raw
        with reading() as names:
            value = parent[key]
        if OmegaConf.is_config(value) and not names:
            return self._section(value, OmegaConf.to_container(value, resolve=False), path, secret)
        plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        return self._from_environment(raw, plain, names, path, secret) if names else self._resolved(plain, secret)

    def _from_environment(self, raw: str, value: Any, names: set[str], path: str, secret: bool) -> Any:
        """The value of ``path``, or the reference ``raw``, which reads the variables ``names``."""
        if secret or has_form(value) or any(map(looks_secret, names)):
            remember(value)
            if decides(path, Use.PLAIN) and value not in (None, ""):
                raise _refusal(path, f"from the environment ({', '.join(sorted(names))})")
            return raw.replace("\\${", "${")
        if decides(path, Use.PLAIN) or not _holds_text(value):
            return value
        self.texts[path] = str(value)
        return raw.replace("\\${", "${")

    def _resolved(self, value: Any, secret: bool) -> Any:
        if secret:
            remember(value)
        return value


def _refuse_masked(written: Any, hidden: Any, path: str) -> None:
    """Refuses a secret where a checkpoint needs the value."""
    if isinstance(written, dict | list):
        for key in written if isinstance(written, dict) else range(len(written)):
            _refuse_masked(written[key], hidden[key], f"{path}.{key}".lstrip("."))
    elif hidden is not written and hidden != written and decides(path, Use.PLAIN):  # NaN is not equal to itself
        raise _refusal(path, "")


def _refusal(path: str, where: str) -> UserError:
    return UserError(
        f"{path} holds a secret{' ' * bool(where)}{where}, but run.json and checkpoints store the value of this key; "
        f"leave it out, and read the variable inside your class (os.environ)"
    )


def _holds_text(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_holds_text, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str)
