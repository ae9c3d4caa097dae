"""The classification accuracy score of a checkpoint's samples."""

from torch import Tensor

from litdiffusion.errors import UserError
from litdiffusion.measure.distances import Estimate
from litdiffusion.measure.features import classification_accuracy
from litdiffusion.measure.quality import ImageQuality
from litdiffusion.reports.subjects import Subject
from litdiffusion.reports.table import Row


def accuracy_numbers(subject: Subject, samples: Tensor, class_labels: Tensor | None) -> Row:
    """``accuracy`` on real test images of a classifier that is trained on ``samples`` only.

    ``real_accuracy`` is the accuracy of a classifier trained on as many real images. Samples of an unconditional model
    get the classes that the metrics' classifier predicts; their score is called ``pseudo_accuracy``. It measures
    whether the samples cover the differences between classes, not whether the model knows its classes.
    """
    quality = subject.quality
    if not isinstance(quality, ImageQuality):
        raise UserError("accuracy=true needs labelled images; leave it out")
    name = "accuracy" if class_labels is not None else "pseudo_accuracy"
    if class_labels is None:
        logits = quality.real.extractor(samples).logits
        if logits is None:
            raise UserError(
                "accuracy=true of an unconditional model needs metrics=classifier, which predicts the classes"
            )
        class_labels = logits.argmax(dim=1)
    found = classification_accuracy(samples, class_labels, quality.data)
    print(
        f"a classifier trained on {found.n} samples only is right on {100 * found.samples.accuracy:.1f} ± "
        f"{100 * found.samples.error:.1f} % of the real test images, one trained on as many real images on "
        f"{100 * found.real.accuracy:.1f} ± {100 * found.real.error:.1f} %"
        + ("" if name == "accuracy" else " (the classes of the samples are predicted by the metrics' classifier)"),
        flush=True,
    )
    return {name: Estimate(*found.samples, found.n), "real_accuracy": Estimate(*found.real, found.n)}
