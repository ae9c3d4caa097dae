"""What Hydra gets to know of litdiffusion at its start, for it imports all of ``hydra_plugins``. No torch."""

from hydra.core.config_store import ConfigStore

from litdiffusion.config import resolvers  # noqa: F401  # registers them: a notebook need not import litdiffusion

# Hydra's own sweeper has no params where none are set, and then refuses those of the command line with a traceback.
_store = ConfigStore.instance()
_basic = _store.load("hydra/sweeper/basic.yaml").node
_basic.params = {}
_store.store(group="hydra/sweeper", name="basic", node=_basic, provider="hydra")
