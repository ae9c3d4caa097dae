"""Refuses unknown keys, and names the yaml that sets a key. Imports no torch."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from litdiffusion.config.hints import did_you_mean, flat
from litdiffusion.config.yamls import Yamls, groups_in
from litdiffusion.errors import UserError, nearest

NAMED_PARTS = ("callbacks", "logger")
"""Groups of named parts. A part without a ``_target_`` is never built."""
OPTIONAL = ("callbacks", "logger", "metrics", "lr_schedule", "recipe", "experiment")
"""Groups that may be missing from a run."""
PROCESS = ("schedule", "parameterization", "times", "weighting", "sampler")
"""Groups of a diffusion, which the run of an autoencoder has none of (``recipe=autoencoder``)."""


def check_keys(cfg: DictConfig, primary: Mapping[str, Any], yamls: Yamls) -> None:
    """Refuses keys that no part reads: typing errors in a yaml or after a ``+``, which Hydra accepts as new settings.

    Args:
        cfg: the composed config.
        primary: content of the primary config; its keys and the groups are the known keys.
        yamls: yamls that ``cfg`` was composed from.

    Raises:
        UserError: names the key, the nearest known key, and the yaml that sets it.
    """
    groups = [path.name for folder in yamls.folders[1:] for path in folder.iterdir() if path.is_dir()]  # the user's own
    known, needed = [*primary, *groups, *groups_in(primary)], [*primary, *groups_in(primary)]
    plain = OmegaConf.to_container(cfg, resolve=False)
    keys = [name for name in flat(plain) if name.partition(".")[0] in known and not name.startswith("derived.")]
    _require_known(cfg, "", known, yamls, [*groups, *keys])
    optional = ("defaults", "hydra", *OPTIONAL, *(() if any(part in cfg for part in PROCESS) else PROCESS))
    for key in needed:
        if key not in optional and key not in cfg:
            raise UserError(f"{key} is missing from the config; remove ~{key} from the command line")
    _require_known(cfg.get("derived") or {}, "derived.", list(primary.get("derived", {})), yamls)
    for group in NAMED_PARTS:
        nodes = cfg.get(group) or {}
        orphans = [name for name in nodes if OmegaConf.is_dict(nodes[name]) and "_target_" not in nodes[name]]
        if orphans:
            _require_known(orphans, f"{group}.", sorted(yamls.part_names(group)), yamls)


def in_file(message: str, yamls: Yamls) -> str:
    """Appends to a message that begins with a dotted key the yaml that sets this key, if there is one."""
    key = re.match(r"\w+(\.\w+)*", message)
    path = yamls.setting(key.group(0)) if key and "." in key.group(0) and "[in " not in message else None
    return message if path is None else f"{message} [in {path}]"


def _require_known(
    keys: Any, prefix: str, known: Sequence[str], yamls: Yamls, dotted: Sequence[str] | None = None
) -> None:
    for key in (str(key) for key in keys):
        if key not in known:
            path = yamls.setting(f"{prefix}{key}")
            remedy = f" [in {path}]" if path else "; remove it from the command line"
            hint = nearest(key, list(known)) if dotted is None else did_you_mean(key, dotted)
            raise UserError(f"{prefix}{key} is not a key of the config{hint}{remedy}")
