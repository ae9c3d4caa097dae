"""The key ``push`` of a run: what is checked before the training, and the push at its end."""

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig

from litdiffusion.build import Run
from litdiffusion.config.settings import diffuses
from litdiffusion.errors import UserError
from litdiffusion.pretrained import hub
from litdiffusion.pretrained.sharing import push_run


def check_push(cfg: DictConfig, run: Run) -> None:
    """Refuses a push that cannot succeed, before hours of training.

    Raises:
        UserError: an autoencoder, a job of a multirun, or see `hub.check_push`.
    """
    if cfg.push is None:
        return
    if not diffuses(cfg):
        raise UserError(f"push={cfg.push} takes a diffusion, and this run trains an autoencoder; leave it out")
    if run.group is not None:
        raise UserError(
            f"push={cfg.push}: all jobs would be pushed to one name; push the best one afterwards by litdiffusion "
            f"export ckpt=... push={cfg.push}"
        )
    if rank_zero_only.rank == 0:
        hub.check_push(cfg.push)


@rank_zero_only
def push_at_end(cfg: DictConfig, run: Run) -> None:
    """Pushes the finished run to ``cfg.push``, if that is set; a failure is one line and loses nothing."""
    if cfg.push is not None:
        push_run(run.dir, cfg.push)
