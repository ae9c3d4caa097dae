"""An adapter for nets with another interface."""

from torch import Tensor, nn

from litdiffusion.nets.classes import as_classes
from litdiffusion.parts.described import Described


class Adapter(Described, nn.Module):
    """Calls ``net(x, noise_label)``, or ``net(x, noise_label, class_label)`` with classes, and unpacks the output.

    Args:
        net: any module; a net that takes ``(x, noise_label, class_label)`` and returns a tensor needs no adapter.
        output: the attribute that holds the tensor, for nets that return an object.
        num_classes: K, for a net that requires a class label: None is then passed as K (see `nets.classes`).
        always_class: pass a class label also without classes, to a net that requires it: 0, which is K.
    """

    def __init__(self, net: nn.Module, output: str | None = None, num_classes: int = 0, always_class: bool = False):
        super().__init__()
        self.net = net
        self.output = output
        self.num_classes, self.asks = num_classes, always_class or num_classes > 0

    def forward(self, x: Tensor, noise_label: Tensor, class_label: Tensor | None = None) -> Tensor:
        class_label = as_classes(class_label, noise_label, self.num_classes) if self.asks else class_label
        out = self.net(x, noise_label) if class_label is None else self.net(x, noise_label, class_label)
        return getattr(out, self.output) if self.output else out
