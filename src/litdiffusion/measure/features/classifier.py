"""Features by a classifier of the data's own classes, trained once and kept in a file."""

from dataclasses import asdict
from pathlib import Path
from time import perf_counter

from litdiffusion.data.base import DataModule
from litdiffusion.data.digest import tensor_digest
from litdiffusion.errors import UserError
from litdiffusion.measure.cache import Cached, cached, key_of
from litdiffusion.measure.features.extractor import ClassifierExtractor
from litdiffusion.measure.features.training import ClassifierTraining, accuracy, fit_classifier, new_classifier

_DEFAULT = ClassifierTraining()
# Raise it with every change of the net or its training that no setting shows.
_VERSION = 1


class ClassifierFeatures:
    """Trains a `Classifier` of the data's classes, or loads the one in ``cache``.

    The file is ``classifier-<key>.safetensors``. The key changes with the data's fingerprint and with any setting. A
    damaged or foreign file is named in a warning and replaced. Processes that train at the same time get the same
    weights, and the last complete file stays. Settings: see `ClassifierTraining`.

    These features separate the classes. Background, colour and texture may have no effect on them. Numbers are
    comparable under one name only.
    """

    def __init__(
        self,
        *,
        cache: str | Path,
        seed: int = 0,
        steps: int = _DEFAULT.steps,
        max_epochs: int = _DEFAULT.max_epochs,
        batch_size: int = _DEFAULT.batch_size,
        lr: float = _DEFAULT.lr,
        weight_decay: float = _DEFAULT.weight_decay,
        shift: int = _DEFAULT.shift,
        width: int = _DEFAULT.width,
    ) -> None:
        self.cache, self.seed = Path(cache).expanduser(), seed
        self.training = ClassifierTraining(steps, max_epochs, batch_size, lr, weight_decay, shift, width)

    def prepare(self, data: DataModule) -> ClassifierExtractor:
        """The extractor for ``data``, named ``classifier-<data>-<8 hex digits of its weights>``.

        Raises:
            UserError: for data without classes, images that the net cannot take, or a cache that cannot be written.
        """
        data.load()
        if data.train.class_label is None or data.num_classes < 2:
            raise UserError(
                f"the set {data.name} has no classes, and metrics=classifier needs them; set metrics=none, or "
                f"metrics=inception for images"
            )
        if not data.complete:
            raise UserError(
                f"only the first items of the set {data.name} are known, and metrics=classifier needs all items; set "
                f"metrics=none, or write the set as a litdiffusion.data.DataModule"
            )
        trained = cached(self.path(data), self.key(data), lambda: self._train(data))
        net = new_classifier(data.shape, data.num_classes, self.training.width, self.seed)
        net.load_state_dict(trained.tensors)
        name = f"classifier-{data.name}-{tensor_digest(trained.tensors)[:8]}"
        return ClassifierExtractor(name, net, tuple(data.shape), float(trained.about["accuracy"]))

    def key(self, data: DataModule) -> str:
        """16 hex digits that change with the data and with any setting."""
        facts = {"shape": list(data.shape), "num_classes": data.num_classes, "seed": self.seed, "version": _VERSION}
        return key_of(data=data.fingerprint(), training=asdict(self.training), **facts)

    def path(self, data: DataModule) -> Path:
        """The file of the weights for ``data``."""
        return self.cache / f"classifier-{self.key(data)}.safetensors"

    def _train(self, data: DataModule) -> Cached:
        # The training takes a minute; the line ends after it.
        print(f"training a classifier of {data.name} for the metrics: ", end="", flush=True)
        start = perf_counter()
        facts = {"shape": data.shape, "num_classes": data.num_classes, "seed": self.seed}
        net = fit_classifier(data.train.data, data.train.class_label, **facts, training=self.training)
        share = accuracy(net, data.test())
        seconds = perf_counter() - start
        print(f"{share:.1%} of the test images right, {seconds:.0f} s, cached in {self.cache}".replace("%", " %", 1))
        about = {"data": data.name, "accuracy": share, "seed": self.seed, **asdict(self.training)}
        return Cached(net.state_dict(), about)
