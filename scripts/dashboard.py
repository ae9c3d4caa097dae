"""Writes the project's W&B workspace: ``python scripts/dashboard.py [--project litdiffusion] [--save]``.

Without ``--save`` it needs no server and writes a JSON file; with it, the workspace appears in the project. The package
``wandb-workspaces`` is needed.
"""

import argparse
import os
import sys
from pathlib import Path

from litdiffusion.errors import UserError, first_line
from litdiffusion.reports.workspace import project_workspace, write_workspace
from litdiffusion.runs.wandb_logger import PROJECT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entity", default=os.environ.get("WANDB_ENTITY"), help="user or team; default: WANDB_ENTITY")
    parser.add_argument("--project", default=os.environ.get("WANDB_PROJECT") or PROJECT, help="default: WANDB_PROJECT")
    parser.add_argument("--name", default="litdiffusion", help="name of the workspace")
    parser.add_argument("--out", type=Path, default=Path("workspace.json"), help="file of the workspace")
    parser.add_argument("--save", action="store_true", help="also save it to W&B, which needs a key and a network")
    arguments = parser.parse_args()
    try:
        write(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def write(arguments: argparse.Namespace) -> None:
    if arguments.save and not arguments.entity:
        raise UserError("--save needs --entity, the user or team that owns the project, or WANDB_ENTITY")
    workspace = project_workspace(arguments.entity or "", arguments.project, arguments.name)
    write_workspace(workspace, arguments.out)
    print(f"workspace: {arguments.out}; python scripts/dashboard.py --entity NAME --save shows it on W&B")
    if arguments.save:
        try:
            workspace.save()
        except Exception as error:  # the client raises errors of several packages
            raise UserError(f"W&B does not take the workspace: {first_line(error)}") from error


if __name__ == "__main__":
    main()
