"""Drops arguments of a replaced ``_target_``, which Hydra would merge into the node and pass to the new target."""

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf, open_dict

from litdiffusion.config.trust import targets
from litdiffusion.config.yamls import Layer, Yamls

NEVER_DROPPED = ("trainer",)
"""Nodes that keep all arguments: a user's own Trainer takes the same arguments as Lightning's."""


def drop_former_arguments(cfg: DictConfig, yamls: Yamls) -> list[str]:
    """Removes from ``cfg`` the arguments that were set for a former target of a part; returns their dotted keys.

    References (``${derived.shape}``, ``${seed}``) are kept if the new target takes them, because their value does not
    depend on the target.
    """
    layers = yamls.layers()
    parts = [part for part in targets(OmegaConf.to_container(cfg, resolve=False)) if part[0] not in NEVER_DROPPED]
    dropped = [key for path, target in parts for key in _keys_to_drop(cfg, path, target, layers)]
    for key in dropped:
        path, _, argument = key.rpartition(".")
        node = OmegaConf.select(cfg, path)
        if node is not None:  # None: the parent node is already removed
            with open_dict(node):
                del node[argument]
    return dropped


def _keys_to_drop(cfg: DictConfig, path: str, target: str, layers: Sequence[Layer]) -> list[str]:
    from litdiffusion.config.make import accepts  # imported late because it is slow

    node, start = OmegaConf.select(cfg, path), _first_layer_with(layers, path, target)
    former, current = layers[:start], layers[start:]
    keys = {argument: f"{path}.{argument}" for argument in node if argument != "_target_"}
    left = {
        argument: key
        for argument, key in keys.items()
        if any(layer.holds(key) for layer in former) and not any(layer.holds(key) for layer in current)
    }
    kept = {name for name in left if OmegaConf.is_interpolation(node, name) and accepts(target, name, path)}
    return [key for argument, key in left.items() if argument not in kept]


def _first_layer_with(layers: Sequence[Layer], path: str, target: str) -> int:
    """Index of the first layer that sets ``target`` after the last layer with another target; 0 if there is none."""
    named = [(index, layer.value(f"{path}._target_")) for index, layer in enumerate(layers)]
    others = [index for index, value in named if value not in (None, target)]
    return next((index for index, value in named if others and index > others[-1] and value == target), 0)
