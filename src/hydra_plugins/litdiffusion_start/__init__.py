"""Registers litdiffusion's resolvers and sweeper defaults: Hydra imports ``hydra_plugins`` at its start. No torch."""

from hydra.core.config_store import ConfigStore

from litdiffusion.config import resolvers  # noqa: F401  # the import registers them, also in a notebook

# Without an empty `params`, Hydra's basic sweeper fails with a traceback on params of the command line.
_store = ConfigStore.instance()
_basic = _store.load("hydra/sweeper/basic.yaml").node
_basic.params = {}
_store.store(group="hydra/sweeper", name="basic", node=_basic, provider="hydra")
