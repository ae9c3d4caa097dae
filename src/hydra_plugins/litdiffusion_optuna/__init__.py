"""``hydra/sweeper=optuna``. It is in ``hydra_plugins`` because Hydra searches only there for plugins."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class OptunaSweeper(Sweeper):
    """Searches the swept keys with Optuna, up to a total number of trials over all commands on the same sweep.

    Hydra's own plugin needs Optuna 2, whose sqlite storage does not work with SQLAlchemy 2. It can neither prune trials
    nor continue those of a killed command. This sweeper therefore calls Optuna's ``ask`` and ``tell`` itself.

    Args:
        n_trials: total number of trials, including failed and pruned ones.
        n_jobs: trials at a time, for launchers that run jobs in parallel.
        direction: "min", "max", or "auto": the direction of the metric.
        sampler, pruner: configs of an Optuna sampler and pruner; None: no pruner.
        params: key -> range, as on the command line, which overrides it.
    """

    def __init__(
        self,
        n_trials: int,
        n_jobs: int,
        direction: str,
        sampler: DictConfig,
        pruner: DictConfig | None,
        params: Mapping[str, str],
    ):
        self.n_trials, self.n_jobs, self.direction = n_trials, n_jobs, direction
        self.sampler, self.pruner, self.params = _plain(sampler), _plain(pruner), params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Runs trials until the study has ``n_trials``; results are reported after each batch of jobs."""
        from litdiffusion.errors import UserError
        from litdiffusion.sweeps import job_name, search

        if self.config.sweep is None:
            raise UserError("hydra/sweeper=optuna needs sweep=NAME, because the study is saved in the sweep's folder")
        self._check()
        lines = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        overrides = OverridesParser.create(self.hydra_context.config_loader).parse_overrides(lines)
        space, fixed = search.space_of(overrides), search.fixed_of(overrides)
        if not space:
            raise UserError("a search needs a range, such as 'optimizer.lr=tag(log,interval(1e-4,1e-2))'")
        self.validate_batch_is_legal(
            [[*fixed, *search.overrides_of(point)] for point in search.points_with_every_choice(space)]
        )
        folder = Path(self.config.hydra.sweep.dir)
        direction = search.direction_of(self.config) if self.direction == "auto" else self.direction
        study = search.open_study(folder, fixed, direction, self.sampler, self.pruner)
        while trials := search.next_trials(study, space, self.n_trials, self.n_jobs):
            jobs = [[*fixed, *search.overrides_of(trial.params)] for trial in trials]
            for trial, job in zip(trials, jobs, strict=True):
                search.store_job_name(study, trial, job_name(job))
            for result in self.launcher.launch(jobs, initial_job_idx=trials[0].number):
                _ = result.return_value  # raises the exception of a failed job
            for trial, job in zip(trials, jobs, strict=True):
                search.end_trial(study, trial, folder / job_name(job))
        print(f"the search has {len(study.trials)} trials; for more raise hydra.sweeper.n_trials={self.n_trials}")

    def _check(self) -> None:
        from litdiffusion.errors import UserError

        if find_spec("optuna") is None:
            raise UserError("hydra/sweeper=optuna needs a package: pip install 'optuna>=4.5,<6'")
        for name, value in (("n_trials", self.n_trials), ("n_jobs", self.n_jobs)):
            if not isinstance(value, int) or value < 1:
                raise UserError(f"hydra.sweeper.{name} must be a whole number of at least 1, got {value!r}")
        if self.direction not in ("auto", "min", "max"):
            raise UserError(f"hydra.sweeper.direction must be auto, min or max, got {self.direction!r}")


def _plain(node: DictConfig | None) -> dict[str, Any] | None:
    return None if node is None else OmegaConf.to_container(node, resolve=True)
