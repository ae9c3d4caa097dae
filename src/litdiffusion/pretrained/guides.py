"""Another model as the guide of autoguidance."""

from collections.abc import Sequence

import torch

from litdiffusion.codecs import Codec
from litdiffusion.diffusion.denoisers import Denoiser
from litdiffusion.errors import UserError
from litdiffusion.pretrained.model import Pretrained


def guide_denoiser(
    ckpt: str | None,
    shape: tuple[int, ...],
    num_classes: int,
    codec: Codec,
    weights: str = "ema",
    trust: Sequence[str] = (),
) -> Denoiser:
    """The denoiser of a checkpoint, if it denoises the same space as the model to guide, and knows the same classes.

    Args:
        ckpt: the guide's checkpoint, or the folder of an exported model.
        shape, num_classes, codec: of the model to guide.
        weights: "ema" or "raw".
        trust: as for `Pretrained`.

    Raises:
        UserError: no checkpoint, one that cannot be read, or a guide of another shape, space or number of classes.
    """
    if ckpt is None:
        raise UserError(
            "guide=autoguidance needs a smaller or earlier model: guide.ckpt=outputs/.../checkpoints/last.ckpt (a path "
            "in a checkpoint is never used); or take guidance=1 for none"
        )
    guide = Pretrained(ckpt, weights, trust)
    for what, have, need in (("shape", guide.shape, shape), ("number of classes", guide.num_classes, num_classes)):
        if have != need:
            raise UserError(
                f"guide.ckpt={ckpt} has the {what} {have}, this model {need}; take a guide of the same data"
            )
    probe = torch.linspace(-1, 1, 2)[:, None].expand(2, torch.Size(shape).numel()).reshape(2, *shape)
    if not torch.allclose(guide.codec.decode(probe), codec.decode(probe), rtol=1e-3, atol=1e-3):
        raise UserError(f"guide.ckpt={ckpt} has another codec than this model; train the guide with the same codec")
    return guide.denoiser.requires_grad_(False)
