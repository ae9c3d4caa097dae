"""The last steps of composition: after them a job's config is what was meant, and every key in it is read."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from litdiffusion.config import origins, replaced, words
from litdiffusion.config.yamls import Yamls


def complete_config(cfg: DictConfig, config_dir: Path, config_name: str) -> None:
    """Refuses keys that no part reads (`origins.check_keys`) and drops arguments of a replaced ``_target_``.

    A printed line names the dropped arguments, see `replaced`.
    """
    primary = OmegaConf.to_container(OmegaConf.load(config_dir / f"{config_name}.yaml"), resolve=False)
    yamls = Yamls.of_this_job()
    _add_missing_settings(cfg, primary, yamls)
    origins.check_keys(cfg, primary, yamls)
    dropped = replaced.drop_former_arguments(cfg, yamls)
    if dropped and os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"dropped with the _target_ that was replaced: {', '.join(dropped)}", flush=True)
        _save_config(cfg)


def _add_missing_settings(cfg: DictConfig, primary: Mapping[str, Any], yamls: Yamls) -> None:
    """The config that an earlier run saved may be older than a setting: that has its usual value then."""
    if any(words.is_saved(path) for path in yamls.chosen[:1]):
        for key in primary.keys() - cfg.keys() - {"defaults", "hydra"}:
            OmegaConf.update(cfg, key, primary[key], force_add=True)


def _save_config(cfg: DictConfig) -> None:
    """Hydra has saved the config before; the file must hold what is trained, for it can be run again."""
    hydra = HydraConfig.get()
    path = Path(hydra.runtime.output_dir, hydra.output_subdir or "", "config.yaml")
    if hydra.output_subdir is not None and path.is_file():
        OmegaConf.save(cfg, path)
