"""What the callbacks tell a model of the samples that they draw: classes and conditions as they occur in the data."""

from torch import Tensor

from litdiffusion.data import Facts
from litdiffusion.training import DiffusionModule
from litdiffusion.training.class_labels import classes_in_proportion, classes_in_turn
from litdiffusion.training.conditions import rows_drawn


def told_in_turn(module: DiffusionModule, facts: Facts, count: int, seed: int) -> Tensor | None:
    """The classes in turn (count,), each with the conditions of a random training item of its class (count, C)."""
    if not module.conditions:
        return classes_in_turn(count, module.num_classes)
    return rows_drawn(module.condition(facts.train), count, seed, module.num_classes)


def told_as_in_data(module: DiffusionModule, facts: Facts, count: int, seed: int) -> Tensor | None:
    """The joint distribution of the training items: classes in proportion (count,), or with conditions random rows."""
    if module.conditions:
        return rows_drawn(module.condition(facts.train), count, seed)
    return classes_in_proportion(facts.train.class_label, count) if module.num_classes else None
