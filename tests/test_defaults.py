"""A part has one default for each argument: what its yaml says is what its constructor does without it."""

import inspect
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from conftest import CONF
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf


def parts(node: Any) -> Iterator[DictConfig]:
    """The configs of the package's own classes in a yaml."""
    if isinstance(node, DictConfig):
        if str(node.get("_target_")).startswith("litdiffusion."):
            yield node
        for key in node:
            if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
                yield from parts(node[key])


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_every_default_of_a_constructor_is_the_value_of_a_yaml_of_its_class():
    """A class with several yamls (a chain and a source's preset of it) has the default of one of them.

    A yaml that does not name an argument has its default. None is no value: the class works it out (every level of a
    chain), or it is a fact of the run (an interpolation).
    """
    given, yamls = defaultdict(list), Counter()
    for path in CONF.rglob("*.yaml"):
        for part in parts(OmegaConf.load(path)):
            values = OmegaConf.to_container(part, resolve=False)
            yamls[values["_target_"]] += 1
            for name in values.keys() & inspect.signature(get_object(values["_target_"])).parameters.keys():
                given[values["_target_"], name].append(values[name])
    differing = {}
    for (target, name), values in given.items():
        default = inspect.signature(get_object(target)).parameters[name].default
        if len(values) < yamls[target]:
            continue
        fixed = [value for value in values if "${" not in str(value)]
        if default not in (inspect.Parameter.empty, None) and fixed and plain(default) not in fixed:
            differing[f"{target.rpartition('.')[2]}.{name}"] = (default, fixed)
    assert len(given) > 100
    assert not differing
