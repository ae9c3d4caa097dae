"""Arguments of a ``_target_`` that another one has replaced: Hydra merges, and would hand them to the new target."""

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf, open_dict

from litdiffusion.config.trust import targets
from litdiffusion.config.yamls import Layer, Yamls

NEVER_DROPPED = ("trainer",)
"""A Trainer of the user's own is one of Lightning's, and takes the same arguments."""


def drop_former_arguments(cfg: DictConfig, yamls: Yamls) -> list[str]:
    """Takes out of ``cfg`` what was set for another target than the one that a part has now; returns the dotted keys.

    References to other values (``${derived.shape}``, ``${seed}``) say where the argument comes from, whatever the
    target: they are kept where the new one takes them.
    """
    layers = yamls.layers()
    parts = [part for part in targets(OmegaConf.to_container(cfg, resolve=False)) if part[0] not in NEVER_DROPPED]
    dropped = [key for path, target in parts for key in _keys_to_drop(cfg, path, target, layers)]
    for key in dropped:
        path, _, argument = key.rpartition(".")
        node = OmegaConf.select(cfg, path)
        if node is not None:  # None: a part inside one that was dropped whole
            with open_dict(node):
                del node[argument]
    return dropped


def _keys_to_drop(cfg: DictConfig, path: str, target: str, layers: Sequence[Layer]) -> list[str]:
    from litdiffusion.config.make import accepts  # its type checks take a while to import

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
    """The first layer that names the part's target, after the last that names another one; 0: it was never another."""
    named = [(index, layer.value(f"{path}._target_")) for index, layer in enumerate(layers)]
    others = [index for index, value in named if value not in (None, target)]
    return next((index for index, value in named if others and index > others[-1] and value == target), 0)
