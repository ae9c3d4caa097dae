"""Whether a new job of a sweep is like the jobs before it, apart from the overrides."""

from functools import reduce
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from litdiffusion.config.composition import composed_again
from litdiffusion.config.identity import changed_keys
from litdiffusion.config.job_names import relevant_values
from litdiffusion.config.keys import Use
from litdiffusion.config.public import config_and_digests, plain_config
from litdiffusion.errors import UserError, first_line
from litdiffusion.runs.record import RunRecord, read_record


def check_alike(cfg: DictConfig, folder: Path, overrides: tuple[str, ...]) -> None:
    """Refuses a new job whose yamls are others than those of the jobs in the sweep's folder.

    The overrides of the most similar job are composed again. Where the result differs from what that job trained, a
    yaml has changed, and the new job is refused if it has the changed value. Differences that come from overrides, also
    from those of groups, make no refusal. A sweep may therefore be extended by further keys.

    Args:
        cfg: config of the job.
        folder: folder of the job, which starts afresh.
        overrides: overrides of the job.

    Raises:
        UserError: names the job, the key and both values.
    """
    found = _most_similar(folder, overrides)
    if found is None:
        return
    name, record = found
    remedy = "restore the yaml, or take another sweep=NAME"
    try:
        again = composed_again(record.overrides)
        config, texts = config_and_digests(again)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{name} of this sweep cannot be composed any more ({first_line(error)}); {remedy}") from error
    mine, own = plain_config(cfg), relevant_values(overrides)
    for key, then, now in changed_keys(record.config, config, record.environment, texts, Use.JOB):
        if key not in own and (key in texts or _value(mine, key) == _value(config, key)):
            values = "another text in the environment" if key in texts else f"{then!r} there, {now!r} here"
            raise UserError(
                f"this job is not like {name} of the same sweep, although no override says so: {key} is {values}; "
                f"{remedy}, or give {key}=... on the command line"
            )


def _most_similar(folder: Path, overrides: tuple[str, ...]) -> tuple[str, RunRecord] | None:
    """Name and record of the begun job that shares most overrides with ``overrides``, the latest of equal ones."""
    paths = [path for path in folder.parent.glob("*/run.json") if path.parent != folder]
    found = []
    for path in sorted(paths, key=lambda path: path.stat().st_mtime):
        try:
            record = read_record(path.parent)
        except UserError:
            continue  # the table reports a damaged record
        if record is not None and not record.starts_afresh:
            found.append((path.parent.name, record))
    mine = relevant_values(overrides).items()
    return max(reversed(found), key=lambda item: len(mine & relevant_values(item[1].overrides).items()), default=None)


def _value(config: dict[str, Any], key: str) -> Any:
    """The value at a dotted key; None if there is none."""

    def child(node: Any, part: str) -> Any:
        return node.get(part) if isinstance(node, dict) else None

    return reduce(child, key.split("."), config)
