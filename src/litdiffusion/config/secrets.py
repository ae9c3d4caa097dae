"""What looks like a secret, and how it is masked. Imports no torch.

The rule, for everything that is stored, printed or sent:

- A value is secret if its key, or the environment variable that it comes from, looks like the name of a secret
  (`looks_secret`), or if it has the form of a well-known key (`FORMS`). It is replaced by ``***``.
- A reference to the environment, ``${oc.env:NAME}``, is no secret; a literal default inside it may be one.
- A part of a checkpoint cannot be rebuilt from ``***``, so `public` refuses a secret there.
"""

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

from litdiffusion.config.keys import Use, decides

MASK = "***"
WORDS = {
    *("token", "secret", "secrets", "password", "passwd", "passphrase", "apikey", "credential", "credentials"),
    *("auth", "authorization"),
}
PAIRS = {(word, "key") for word in ("api", "private", "access", "signing", "encryption", "account")}
HARMLESS = {
    *("dim", "dims", "size", "length", "len", "count", "type", "name", "file", "path", "dir", "folder", "method"),
    *("mode", "dropout", "sock", "url"),
}
"""Last words of names that describe a secret without holding it, such as ``token_dim`` and ``AUTH_METHOD``."""
FORMS = re.compile(
    r"\bsk-[\w-]{16,}"  # OpenAI, Anthropic
    r"|\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,})"
    r"|\bhf_[A-Za-z0-9]{16,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bxox[a-z]-[\w-]{10,}"  # Slack
    r"|\bwandb_v\d_\w{20,}"
    r"|\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*"  # JSON web token
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<=://)[^\s/:@${}]+:[^\s/@${}]+(?=@)",  # user:password of a URL
    re.DOTALL,
)
_WANDB_KEY = re.compile(r"[0-9a-f]{40}")
_HASHES = {"commit", "revision", "sha", "sha1", "hash", "digest", "checksum", "rev"}
"""Words of keys whose 40 hexadecimal digits name a version, and are no key of W&B's."""
_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_ASSIGNED = re.compile(
    rf"(?P<head>(?:(?<![\w.@/-])[\w.@/-]+=|(?P<inside>(?<=[{{,])\s*[\w.-]+\s*:\s*)))"
    rf"(?P<value>{_QUOTED}|\[[^\]]*\]|\{{[^{{}}]*\}}"
    rf"|(?:\$\{{[^{{}}]*(?:\{{[^{{}}]*\}}[^{{}}]*)*\}}|[^\s,}}\]]|(?(inside) +(?=[^\s,}}\]])|(?!)))+)"
)
_DEFAULT = re.compile(r"(\$\{\s*oc\.env\s*:[^,{}]+,)[^{}]*\}")
SHORTEST = 8
"""Length from which a secret is also masked inside other texts; shorter ones would mask ordinary words."""
_KNOWN: set[str] = set()


@lru_cache(maxsize=4096)  # every masked text asks for all variables of the environment
def looks_secret(name: object) -> bool:
    """Whether a key or a variable is named like a secret, by whole words: ``hf_token``, not ``tokens``."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", str(name))]
    if not words or words[-1] in HARMLESS:
        return False
    return bool(WORDS & {*words} or PAIRS & {*pairwise(words)})


def has_form(value: Any) -> bool:
    """Whether a text has the form of a well-known key, or holds one."""
    return isinstance(value, str) and bool(FORMS.search(value) or _WANDB_KEY.fullmatch(value))


def remember(value: Any) -> None:
    """Masks this secret in every text from now on, in this process."""
    if len(str(value)) >= SHORTEST and not isinstance(value, bool):
        _KNOWN.add(str(value))


def forget() -> None:
    """Forgets the remembered secrets, for a second command in the same process."""
    _KNOWN.clear()


def masked(node: Any, path: str = "", secret: bool = False, references: bool = False) -> Any:
    """A plain config without its secrets.

    Args:
        node: plain value at ``path``.
        path: dotted key of the node.
        secret: whether a key above the node looks like a secret; a part (``_target_``) below it has names of its own.
        references: also mask references to the environment, to compare a typed secret with a reference.
    """
    if isinstance(node, Mapping):
        secret = secret and "_target_" not in node
        return {key: masked(v, f"{path}.{key}".lstrip("."), secret or looks_secret(key), references)
                for key, v in node.items()}  # fmt: skip
    if isinstance(node, list | tuple):
        words = [masked_word(value) if isinstance(value, str) else value for value in node]  # may be overrides
        return [masked(word, f"{path}.{i}", secret, references) for i, word in enumerate(words)]
    if node is None or isinstance(node, bool):
        return node
    if isinstance(node, str):
        if secret and node:
            return MASK if references else _hidden(node)
        name = path.rpartition(".")[2]
        return MASK if _WANDB_KEY.fullmatch(node) and not _names_a_version(name) else masked_text(node)
    # A number in a part is a size, such as model.token: 4.
    return MASK if secret and not decides(path, Use.PLAIN) else node


def masked_text(text: str) -> str:
    """A message, or a word of the command line, without secrets: known ones, ``api_key=...``, and `FORMS`."""
    for value in sorted(_known_values(), key=len, reverse=True):
        text = text.replace(value, MASK)
    return FORMS.sub(MASK, _ASSIGNED.sub(_masked_assignment, text))


def masked_word(word: str) -> str:
    """An override, or another word of the command line, without secrets."""
    key, sign, value = word.partition("=")
    named = sign and re.fullmatch(r"[\w.@/+~-]+", key) and looks_secret(key.rpartition(".")[2])
    return f"{key}={_hidden(value)}" if named and value else masked_text(word)


def masked_keys(node: Any, path: str = "") -> list[str]:
    """Dotted keys of the values that are masked in a plain config."""
    if isinstance(node, Mapping | list):
        inner = node.items() if isinstance(node, Mapping) else enumerate(node)
        return [key for name, value in inner for key in masked_keys(value, f"{path}.{name}".lstrip("."))]
    return [path] if isinstance(node, str) and MASK in node else []


def _masked_assignment(match: re.Match[str]) -> str:
    name = match["head"].rstrip().rstrip("=:").rstrip()
    if looks_secret(name.rpartition(".")[2]):
        return match["head"] + _hidden(match["value"])
    value = match["value"]
    if _WANDB_KEY.fullmatch(value.strip("'\"")) and not _names_a_version(name):
        return match["head"] + MASK
    if value[0] in "{[":
        value = _ASSIGNED.sub(_masked_assignment, value)
    elif value[0] in "'\"":
        value = value[0] + _ASSIGNED.sub(_masked_assignment, value[1:-1]) + value[-1]
    return match["head"] + value


def _hidden(value: str) -> str:
    """``***``, or the reference to the environment without its default."""
    return _DEFAULT.sub(rf"\1{MASK}}}", FORMS.sub(MASK, value)) if "${" in value else MASK


def _names_a_version(key: str) -> bool:
    return bool(_HASHES & set(re.split(r"[^a-z0-9]+", key.lower())))


def _known_values() -> set[str]:
    named = {value for name, value in os.environ.items() if len(value) >= SHORTEST and looks_secret(name)}
    return _KNOWN | named
