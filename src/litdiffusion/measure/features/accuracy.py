"""Are samples of each class as good to learn from as data? The classification accuracy score."""

from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from litdiffusion.data.base import DataModule
from litdiffusion.data.batch import Batch
from litdiffusion.data.loaders import take
from litdiffusion.errors import UserError
from litdiffusion.measure.features.extractor import to_bytes
from litdiffusion.measure.features.training import ClassifierTraining, accuracy, check_class_labels, fit_classifier


class Score(NamedTuple):
    """A share p of right answers in [0, 1] and its standard error ``sqrt(p (1 - p) / n)`` for n test images."""

    accuracy: float
    error: float


class ClassificationAccuracy(NamedTuple):
    """Scores of two classifiers on real test images: one trained on ``samples``, one on as many ``real`` images."""

    samples: Score
    real: Score
    n: int
    """How many images each was trained on."""


def classification_accuracy(
    samples: Tensor,
    class_labels: Tensor,
    data: DataModule,
    *,
    seed: int = 0,
    training: ClassifierTraining | None = None,
) -> ClassificationAccuracy:
    """The accuracy on real test images of a classifier trained on ``samples`` alone, beside one trained on real ones.

    Both are the same net with the same seed and settings, and learn from the first n samples and from the first n
    training images, n the smaller number of the two. Samples as good as data give equal scores; samples that ignore
    their label give chance, 1 / K; a missing variety lowers the score although each sample looks right. The errors
    are those of a finite test set; they do not count what another seed of the training would change.

    Shapes: samples (N, C, H, W) in [-1, 1], rounded to bytes; labels (N,), the classes the samples were asked for.

    Errors: `UserError` for unlabelled data, and for labels out of range.

    Source: Ravuri, Vinyals, "Classification Accuracy Score for Conditional Generative Models", 2019,
    arXiv 1905.10887.
    """
    data.load()
    if data.train.class_label is None or data.num_classes < 2:
        raise UserError(f"the set {data.name} has no classes; the classification accuracy score needs labelled images")
    check_class_labels(len(samples), class_labels, data.num_classes)
    first = torch.arange(min(len(samples), len(data.train.data)))
    real = take(data.train.data, data.train.class_label, first)
    drawn = Batch(to_bytes(samples[first]).cpu(), class_labels[first].cpu())
    drawn_score, real_score = (_score(batch, data, seed, training) for batch in (drawn, real))
    return ClassificationAccuracy(drawn_score, real_score, len(first))


def _score(batch: Batch, data: DataModule, seed: int, training: ClassifierTraining | None) -> Score:
    facts = {"shape": data.shape, "num_classes": data.num_classes, "seed": seed}
    net = fit_classifier(batch.data, batch.class_label, **facts, training=training)
    test = data.test()
    share = accuracy(net, test)
    return Score(share, sqrt(share * (1 - share) / len(test.data)))
