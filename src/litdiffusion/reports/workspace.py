"""A W&B workspace of the project from code: the panels in which runs of this framework are compared."""

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from litdiffusion.errors import UserError, first_line
from litdiffusion.runs.files import write_atomically
from litdiffusion.runs.wandb_logger import STEP
from litdiffusion.training.quartiles import NAMES
from litdiffusion.training.train_log import SECTIONS

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

HEADLINES = ("wasserstein_over_floor", "frechet_over_floor")
"""The main numbers of vectors and of images; a panel leaves out what no run has."""


def project_workspace(entity: str, project: str, name: str = "litdiffusion") -> "Workspace":
    """Five sections: loss by quartile of time, quality over the floor, trajectories, samples, shares of the time.

    Needs no server. Every run of the project is shown; panels that stand for a best value read W&B's summary.

    Raises:
        UserError: wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise UserError(
            f"the workspace needs the package wandb-workspaces ({first_line(error)}); pip install wandb-workspaces"
        ) from error

    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            workspaces.Section(name=title, panels=held, is_open=True) for title, held in _sections(panels).items()
        ],
    )


def _sections(panels: ModuleType) -> dict[str, list[Any]]:
    """Title -> panels, of the package's module ``panels``."""

    def lines(title: str, *names: str, log: bool = False) -> Any:
        return panels.LinePlot(title=title, x=STEP, y=list(names), log_y=log or None)

    def quartiles(part: str) -> list[str]:
        return [f"{part}/loss_{name}" for name in NAMES]

    over_floor = [f"quality/{name}" for name in HEADLINES]
    return {
        "Loss": [
            lines("validation loss", "val/loss", log=True),
            lines("validation loss by quartile of t", *quartiles("val"), log=True),
            lines("training loss by quartile of t", *quartiles("train"), log=True),
            panels.ScalarChart(title="best validation loss", metric="val/loss.min"),
        ],
        "Quality": [
            lines("distance over the floor (1: perfect)", *over_floor, log=True),
            panels.ScalarChart(title="best distance over the floor, vectors", metric=f"{over_floor[0]}.min"),
            panels.ScalarChart(title="best distance over the floor, images", metric=f"{over_floor[1]}.min"),
        ],
        "Trajectories": [
            panels.MediaBrowser(title="from noise to data", media_keys=["animations/trajectory"]),
            panels.MediaBrowser(title="states", media_keys=["pictures/trajectory"]),
        ],
        "Samples": [
            panels.MediaBrowser(title="samples at the end", media_keys=["pictures/samples"]),
            panels.WeavePanelSummaryTable(table_name="pictures/samples_table"),
        ],
        "Time": [
            lines("share of the time, %", *(f"time/{name}_percent" for name in SECTIONS)),
            lines("samples per second", "time/samples_per_second"),
        ],
    }


def write_workspace(workspace: "Workspace", path: Path) -> None:
    """Writes the workspace as the JSON that W&B's server would get."""
    # The package saves to a server alone; this is the object that its `save` sends.
    write_atomically(path, workspace._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1).encode())
