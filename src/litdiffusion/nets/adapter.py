"""A bridge to nets written elsewhere."""

from torch import Tensor, nn

from litdiffusion.nets.classes import as_classes
from litdiffusion.parts.described import Described


class Adapter(Described, nn.Module):
    """Calls ``net(x, label)``, or ``net(x, label, cond)`` where there is a condition, and unpacks its output.

    Args:
        net: any module; a net that already returns a tensor and takes ``(x, label, cond)`` needs no adapter.
        output: the attribute that holds the tensor, for nets that return a record.
        classes: K, of a net that always wants a condition: K, its last row, then stands for None (see `nets.classes`).
    """

    def __init__(self, net: nn.Module, output: str | None = None, classes: int = 0):
        super().__init__()
        self.net = net
        self.output = output
        self.classes = classes

    def forward(self, x: Tensor, label: Tensor, cond: Tensor | None = None) -> Tensor:
        cond = as_classes(cond, label, self.classes) if self.classes else cond
        out = self.net(x, label) if cond is None else self.net(x, label, cond)
        return getattr(out, self.output) if self.output else out
