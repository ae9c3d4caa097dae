"""Measures the peak memory of a training step: ``python scripts/memory.py [--batch 1 64 512] [--shape 1 28 28]``.

A step is a forward and a backward pass of the net of ``conf/model`` and a step of AdamW. Counted are all tensors that
are alive at once: weights, average, gradients, states of the optimizer, activations. On a GPU the allocator's own peak
is taken. The table in ``docs/performance.md`` is replaced.
"""

import argparse
import copy
import re
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from litdiffusion.config.paths import CONF
from litdiffusion.training.hardware import prepared

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
NETS = ["unet", "source_unet", "dit", "diffusers_unet", "diffusers_dit"]
MIB = 2**20


class PeakBytes(TorchDispatchMode):
    """The largest number of bytes of tensors that were alive at once, of those made inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self._alive, self.peak = WeakIdKeyDictionary(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._alive[storage] = storage.nbytes()
        self.peak = max(self.peak, sum(self._alive.values()))
        return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=[1, 28, 28], help="channels, height and width of images")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64, 512], help="images of a step")
    parser.add_argument("--net", nargs="+", default=NETS, help="nets of conf/model")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--only-print", action="store_true", help="leave docs/performance.md as it is")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text = table(arguments)
    print(text)
    if not arguments.only_print:
        place = re.compile(r"(<!-- begin memory -->\n).*?(<!-- end memory -->)", re.DOTALL)
        PAGE.write_text(place.sub(lambda found: f"{found[1]}{text}\n{found[2]}", PAGE.read_text()))


def table(arguments: argparse.Namespace) -> str:
    """The table as Markdown: MiB for each net and batch, and with gradient checkpointing."""
    heads = [f"{size} {'image' if size == 1 else 'images'}" for size in arguments.batch]
    shape = " x ".join(map(str, arguments.shape))
    lines = [
        f"MiB of a step on images of {shape}, {'bf16-mixed' if arguments.bf16 else 'float32'}, on {arguments.device}; "
        f"after the slash with `gradient_checkpointing=true`:",
        "",
        f"| net | weights | {' | '.join(heads)} |",
        "|---" * (2 + len(heads)) + "|",
    ]
    for name in arguments.net:
        peaks = [
            " / ".join(f"{peak(name, size, recompute, arguments) / MIB:.0f}" for recompute in (False, True))
            for size in arguments.batch
        ]
        weights = sum(weight.nbytes for weight in made(name, arguments.shape).parameters())
        lines.append(f"| `{name}` | {weights / MIB:.1f} | {' | '.join(peaks)} |")
    return "\n".join(lines)


def made(name: str, shape: list[int]) -> nn.Module:
    """The net of a yaml for images of this shape without classes."""
    derived = {"shape": shape, "out_channels": shape[0], "num_classes": 0, "num_class_embeds": None, "conditions": []}
    derived["noise_label_range"] = [1.0, 1000.0]
    node = OmegaConf.create({"model": OmegaConf.load(CONF / "model" / f"{name}.yaml"), "derived": derived})
    return instantiate(node.model)


def peak(name: str, size: int, recompute: bool, arguments: argparse.Namespace) -> int:
    """Bytes of one step with ``size`` images, the second one, when the optimizer has its states."""
    device = torch.device(arguments.device)
    net = prepared(made(name, arguments.shape), False, device.type, gradient_checkpointing=recompute).to(device).train()
    average = copy.deepcopy(net)
    optimizer = torch.optim.AdamW(net.parameters())
    x, noise_label = torch.randn(size, *arguments.shape, device=device), torch.full((size,), 500.0, device=device)
    step(net, optimizer, x[:1], noise_label[:1], arguments.bf16)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step(net, optimizer, x, noise_label, arguments.bf16)
        return torch.cuda.max_memory_allocated()
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    lasting = sum(tensor.nbytes for tensor in [*net.parameters(), *average.parameters(), *states, x])
    with PeakBytes() as memory:
        step(net, optimizer, x, noise_label, arguments.bf16)
    return lasting + memory.peak


def step(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, noise_label: Tensor, bf16: bool) -> None:
    """A step of the optimizer; gradients are freed."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        loss = (net(x, noise_label) - x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


if __name__ == "__main__":
    main()
