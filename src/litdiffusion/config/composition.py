"""The last steps of composition: missing settings, unknown keys, arguments of a replaced ``_target_``."""

import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from litdiffusion.config import origins, replaced, resolvers, words  # noqa: F401  (resolvers registers itself)
from litdiffusion.config.environment import read_numbers
from litdiffusion.config.overruled import overruled
from litdiffusion.config.paths import CONF
from litdiffusion.config.public import plain_config
from litdiffusion.config.secrets import MASK, masked, masked_keys
from litdiffusion.config.yamls import Yamls
from litdiffusion.errors import UserError
from litdiffusion.runs.files import write_atomically


def complete_config(cfg: DictConfig, config_dir: Path, config_name: str) -> None:
    """Refuses keys that no part reads (`origins.check_keys`) and drops arguments of a replaced ``_target_``.

    Prints the dropped arguments, see `replaced`. Secrets in Hydra's own files are masked.
    """
    _mask_saved_files()
    primary = OmegaConf.to_container(OmegaConf.load(config_dir / f"{config_name}.yaml"), resolve=False)
    yamls = Yamls.of_this_job()
    _add_missing_settings(cfg, primary, yamls)
    origins.check_keys(cfg, primary, yamls)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        for line in overruled():
            print(line, file=sys.stderr, flush=True)
    dropped = replaced.drop_former_arguments(cfg, yamls)
    if dropped and os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"dropped arguments of a replaced _target_: {', '.join(dropped)}", flush=True)
        _save_config(cfg)
    _refuse_mask(cfg)


def composed_again(overrides: Sequence[str]) -> DictConfig:
    """What the overrides of another job of this command's config compose to, with the yamls as they are now."""
    cfg = compose(HydraConfig.get().job.config_name, overrides=list(overrides), return_hydra_config=True)
    hydra = cfg.hydra
    with open_dict(cfg):
        del cfg["hydra"]
    read_numbers(cfg)
    replaced.drop_former_arguments(cfg, Yamls.of(hydra))
    return cfg


@cache
def default_config() -> dict[str, Any]:
    """The plain config that the project's yamls compose to without any override; must not be changed."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()  # because a job of Hydra has its own folders of yamls
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return plain_config(compose("train"))
    finally:
        GlobalHydra.instance().hydra = running  # of an instance that Hydra's initialisation may have replaced


def _add_missing_settings(cfg: DictConfig, primary: Mapping[str, Any], yamls: Yamls) -> None:
    """Adds defaults to a config that an earlier run saved, because it may lack settings that are newer."""
    if any(words.is_saved(path) for path in yamls.chosen[:1]):
        for key in primary.keys() - cfg.keys() - {"defaults", "hydra"}:
            OmegaConf.update(cfg, key, primary[key], force_add=True)


def _refuse_mask(cfg: DictConfig) -> None:
    """Refuses a config that an earlier run saved without its secrets."""
    if keys := masked_keys(OmegaConf.to_container(cfg, resolve=False)):
        raise UserError(
            f"{keys[0]} holds {MASK}, which stands for a secret that was not stored; give it again, best as "
            f"{keys[0]}='${{oc.env:NAME}}'"
        )


def _mask_saved_files() -> None:
    """Removes secrets from the files that Hydra wrote before the job began."""
    folder, multirun = _hydra_folder(), Path(HydraConfig.get().sweep.dir, "multirun.yaml")
    for path in [*(folder.glob("*.yaml") if folder else ()), multirun]:
        if path.is_file():
            written = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
            if (hidden := masked(written)) != written:
                write_atomically(path, OmegaConf.to_yaml(OmegaConf.create(hidden)).encode())


def _save_config(cfg: DictConfig) -> None:
    """Overwrites the config file that Hydra saved before, because a later command may train from that file."""
    folder = _hydra_folder()
    if folder is not None and (folder / "config.yaml").is_file():
        hidden = masked(OmegaConf.to_container(cfg, resolve=False))
        write_atomically(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(hidden)).encode())


def _hydra_folder() -> Path | None:
    """The folder of this attempt's own files of Hydra; None without such files."""
    hydra = HydraConfig.get()
    if hydra.output_subdir is None:
        return None
    folder = Path(hydra.runtime.output_dir, hydra.output_subdir)
    if folder.is_dir():
        return folder
    # `run_subdir` counts folders, so it already names that of the next attempt.
    attempts = sorted(folder.parent.glob("attempt_*"), key=lambda path: int(path.name.removeprefix("attempt_")))
    return attempts[-1] if attempts else folder.parent
