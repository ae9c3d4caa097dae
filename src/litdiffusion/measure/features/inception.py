"""Features by the Inception network of published scores, from a local file of weights; nothing is downloaded."""

import hashlib
import pickle
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from litdiffusion.data.base import DataModule
from litdiffusion.errors import UserError, first_line
from litdiffusion.measure.features.extractor import Extractor, FeatureMaps

FILE = "weights-inception-2015-12-05-6726825d.pth"
"""torch-fidelity's file; pytorch-fid has the same bytes as ``pt_inception-2015-12-05-6726825d.pth``."""
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""The digest of its 95 628 359 bytes."""
_INSTEAD = "or set metrics=classifier (images with classes) or metrics=none"


class InceptionFeatures:
    """The Inception network of the original FID in torch-fidelity's port: 2048 features and 1008 logits.

    ``weights`` is a path, or None for `FILE` in torch.hub's folder of checkpoints, which must have the digest `SHA256`.
    A file of another digest at a path of its own is used with a warning. The extractor's name holds the first digits
    of the digest. The resize of the original code is used, so numbers compare with published ones of the same number of
    images.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017,
    arXiv 1706.08500; Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2015,
    arXiv 1512.00567.
    """

    def __init__(self, *, weights: str | Path | None = None) -> None:
        self.weights = None if weights is None else Path(weights).expanduser()

    def prepare(self, data: DataModule) -> "InceptionExtractor":
        """The extractor, named ``inception-<8 hex digits of the file>``.

        Raises:
            UserError: for data that are not images, weights that are missing, unreadable or not the published ones, or
                if torch-fidelity is not installed.
        """
        if len(data.shape) != 3:
            raise UserError(
                f"Inception takes images, but the items of {data.name} have shape {tuple(data.shape)}; set metrics=none"
            )
        if data.shape[0] not in (1, 3):
            raise UserError(
                f"Inception takes 1 or 3 channels, but the images of {data.name} have {data.shape[0]}: {_INSTEAD}"
            )
        if find_spec("torch_fidelity") is None:
            raise UserError(f"Inception features need a package: pip install 'torch-fidelity>=0.3', {_INSTEAD}")
        path = self.path()
        if not path.is_file():
            raise UserError(
                f"Inception features need the weights {path}, which are absent and not downloaded: put {FILE} of "
                f"torch-fidelity's releases there, {_INSTEAD}"
            )
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        extractor = InceptionExtractor(f"inception-{digest[:8]}", _network(path, digest))
        if digest != SHA256:
            warnings.warn(
                f"{path} are not Inception's published weights (sha256 {digest[:8]}..., not {SHA256[:8]}...): "
                f"distances do not compare with published FIDs",
                stacklevel=2,
            )
        return extractor

    def path(self) -> Path:
        """The file of the weights."""
        return self.weights or Path(torch.hub.get_dir()) / "checkpoints" / FILE


class InceptionExtractor(Extractor):
    """Pooled features, and logits without bias as in the Inception score; grey images become three equal channels."""

    def __init__(self, name: str, net: nn.Module) -> None:
        super().__init__(name, net, batch_size=50)

    def maps(self, images: Tensor) -> FeatureMaps:
        """Features (B, 2048) and logits (B, 1008)."""
        return FeatureMaps(*self.net(images.expand(-1, 3, -1, -1)))


def _network(path: Path, digest: str) -> nn.Module:
    if path.name == FILE and digest != SHA256:
        raise UserError(
            f"{path} is not the file of its name: its sha256 is {digest}, not {SHA256}; copy {FILE} (95628359 bytes) "
            f"of torch-fidelity's releases there again, {_INSTEAD}"
        )
    # torchmetrics' subclass returns one output only, with another default resize than the published scores.
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        # torch-fidelity unpickles any object; this line first refuses all but tensors.
        torch.load(path, map_location="cpu", weights_only=True)
        with torch.random.fork_rng(devices=[]):
            return FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
        reason = first_line(error)[:120]
        raise UserError(
            f"{path} cannot be read as Inception's weights ({reason}): put {FILE} there, {_INSTEAD}"
        ) from error
