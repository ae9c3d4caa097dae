"""The classification accuracy score: how well a classifier trained on samples recognises real images."""

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
    """The share p of correctly classified images of n test images, and its standard error ``sqrt(p (1 - p) / n)``."""

    accuracy: float
    error: float


class ClassificationAccuracy(NamedTuple):
    """Scores of two classifiers on real test images: one is trained on ``samples``, one on n ``real`` images."""

    samples: Score
    real: Score
    n: int
    """Training images of each classifier."""


def classification_accuracy(
    samples: Tensor,
    class_labels: Tensor,
    data: DataModule,
    *,
    seed: int = 0,
    training: ClassifierTraining | None = None,
) -> ClassificationAccuracy:
    """The accuracy on real test images of a classifier trained on ``samples``, and of one trained on real images.

    Both classifiers have the same net, seed and settings. They learn from the first n samples and from the first n
    training images, with n the smaller of both numbers. Samples as good as data give equal scores. Samples that do not
    depend on their class give chance, 1 / K. A missing variety lowers the score even where each sample looks right. The
    errors are for a finite test set and leave out the seed of the training.

    Shapes: samples (N, C, H, W) in [-1, 1], rounded to bytes; class labels (N,), the condition of each sample.

    Raises:
        UserError: for data without classes, or class labels out of range.

    Source: Ravuri, Vinyals, "Classification Accuracy Score for Conditional Generative Models", 2019,
    arXiv 1905.10887.
    """
    data.load()
    if data.train.class_label is None or data.num_classes < 2:
        raise UserError(f"the set {data.name} has no classes; the classification accuracy score needs class labels")
    check_class_labels(len(samples), class_labels, data.num_classes)
    first = torch.arange(min(len(samples), len(data.train.data)))
    real = take(data.train._replace(conditions=None, latent=None), first)
    drawn = Batch(to_bytes(samples[first]).cpu(), class_labels[first].cpu())
    drawn_score, real_score = (_score(batch, data, seed, training) for batch in (drawn, real))
    return ClassificationAccuracy(drawn_score, real_score, len(first))


def _score(batch: Batch, data: DataModule, seed: int, training: ClassifierTraining | None) -> Score:
    facts = {"shape": data.shape, "num_classes": data.num_classes, "seed": seed}
    net = fit_classifier(batch.data, batch.class_label, **facts, training=training)
    test = data.test()
    share = accuracy(net, test)
    return Score(share, sqrt(share * (1 - share) / len(test.data)))
