"""Optuna's search over the jobs of a sweep. A trial is a job; the study is a file in the sweep's folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.utils import instantiate
from omegaconf import DictConfig

from litdiffusion.config.keys import relevant
from litdiffusion.errors import UserError
from litdiffusion.runs.record import read_record

if TYPE_CHECKING:
    from lightning import Callback
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

    Space = Mapping[str, BaseDistribution]

DATABASE, PRUNER, FIXED, JOB = "optuna.db", "pruner", "fixed", "job"


def space_of(overrides: Sequence[Override]) -> Space:
    """Searched key -> distribution, for ``a,b``, ``range(1,5)``, ``interval(0.1,1)``, ``tag(log,interval(0.1,1))``."""
    searched = [override for override in overrides if override.is_sweep_override()]
    return {override.get_key_element(): _distribution(override) for override in searched}


def fixed_of(overrides: Sequence[Override]) -> list[str]:
    """The overrides that every trial shares."""
    return [override.input_line for override in overrides if not override.is_sweep_override()]


def points_with_every_choice(space: Space) -> list[dict[str, Any]]:
    """Points that together hold every choice, so that all choices can be composed before the first job trains."""
    choices = {key: getattr(part, "choices", None) or (part.low,) for key, part in space.items()}
    longest = max(map(len, choices.values()), default=0)
    return [{key: values[min(k, len(values) - 1)] for key, values in choices.items()} for k in range(longest)]


def overrides_of(point: Mapping[str, Any]) -> list[str]:
    """A point of the space as overrides; numbers have six significant digits, because they name folders."""
    return [f"{key}={f'{value:.6g}' if isinstance(value, float) else value}" for key, value in point.items()]


def open_study(
    folder: Path, fixed: Sequence[str], direction: str, sampler: Mapping[str, Any], pruner: Mapping[str, Any] | None
) -> Study:
    """Opens or makes the study in the sweep's folder.

    Raises:
        UserError: the study has jobs with other fixed overrides, whose metrics are not comparable.
    """
    import optuna

    from litdiffusion.diffusion.seeding import fold_seed  # here, because it imports torch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    goal = {"min": "minimize", "max": "maximize"}[direction]
    study = optuna.create_study(storage=_storage(folder), study_name=folder.name, load_if_exists=True, direction=goal)
    then, now = study.user_attrs.get(FIXED), sorted(relevant(fixed))
    if then not in (None, now):
        raise UserError(
            f"the search in {folder} was started with {' '.join(then) or 'no fixed overrides'}, this command has "
            f"{' '.join(now) or 'none'}; give the same ones, or take another sweep=NAME"
        )
    study.set_user_attr(FIXED, now)
    study.set_user_attr(PRUNER, None if pruner is None else dict(pruner))
    # Another one because a sampler with the same seed would propose its first points again in every process.
    seed = sampler.get("seed")
    shift = {} if seed is None else {"seed": fold_seed(seed, "search", len(study.trials)) % 2**32}
    study.sampler = instantiate({**sampler, **shift})
    return study


def next_trials(study: Study, space: Space, total: int, count: int) -> list[FrozenTrial]:
    """Up to ``count`` trials to run now: unfinished trials of a stopped command, then new ones up to ``total``."""
    from optuna.trial import TrialState

    left = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))[:count]
    new = min(count - len(left), total - len(study.trials))
    new_numbers = [study.ask(dict(space)).number for _ in range(new)]
    return [*left, *(study.trials[number] for number in new_numbers)]


def end_trial(study: Study, trial: FrozenTrial, folder: Path) -> None:
    """Ends a trial with the status and the metric in its job's ``run.json``.

    Raises:
        UserError: another process is training the job.
    """
    from optuna.trial import TrialState

    record = read_record(folder)
    value = record.metrics.get(record.config.get("metric")) if record is not None else None
    if record is not None and record.status == "running":
        raise UserError(f"{folder} is being trained by another process; start the search again when it has ended")
    if record is not None and record.status == "pruned":
        study.tell(trial.number, state=TrialState.PRUNED)
    elif record is not None and record.status == "complete" and value is not None and math.isfinite(value):
        study.tell(trial.number, value)
    else:
        study.tell(trial.number, state=TrialState.FAIL)


def store_job_name(study: Study, trial: FrozenTrial, job: str) -> None:
    """Stores the name of the job's folder in its trial, so that the job finds its trial."""
    _storage_of(study).set_trial_user_attr(trial._trial_id, JOB, job)


def pruning_callbacks(cfg: DictConfig, folder: Path) -> tuple[Callback, ...]:
    """Callbacks that a search adds to each job: one that prunes, if the search has a pruner."""
    if not (folder.parent / DATABASE).is_file():
        return ()
    import optuna

    from litdiffusion.sweeps.pruning import Pruning

    (name,) = optuna.get_all_study_names(_storage(folder.parent))
    study = optuna.load_study(study_name=name, storage=_storage(folder.parent))
    if not study.user_attrs.get(PRUNER):
        return ()
    study.pruner = instantiate(study.user_attrs[PRUNER])
    trials = [
        trial for trial in study.trials if trial.user_attrs.get(JOB) == folder.name and not trial.state.is_finished()
    ]
    return tuple(Pruning(optuna.trial.Trial(study, trial._trial_id), cfg.metric) for trial in trials[-1:])


def direction_of(config: DictConfig) -> str:
    """``min`` or ``max``: which values of ``metric`` are better; loads no data."""
    from litdiffusion.config.derived import better, rising_of

    return better(config.metric, rising_of(config))


def _distribution(override: Override) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        return (IntDistribution if whole else FloatDistribution)(value.start, value.end, log="log" in value.tags)
    if isinstance(value, RangeSweep):
        points = list(value.range())
        kind = IntDistribution if all(isinstance(point, int) for point in points) else FloatDistribution
        return kind(min(points), max(points), step=abs(value.step))
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def _storage(folder: Path) -> RDBStorage:
    from optuna.storages import RDBStorage

    # The timeout lets several processes write to one file in turn.
    return RDBStorage(f"sqlite:///{(folder / DATABASE).absolute()}", engine_kwargs={"connect_args": {"timeout": 60}})


def _storage_of(study: Study) -> RDBStorage:
    return study._storage
