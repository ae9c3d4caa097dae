"""The command ``litdiffusion``, whose parts the scripts of a checkout run too. Imports neither torch nor Hydra."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import NamedTuple

from litdiffusion.errors import UserError, nearest


class Command(NamedTuple):
    """A word after ``litdiffusion``.

    Args:
        text: its line in the list of commands.
        config: the primary config of a Hydra command, whose function stands in `jobs`.
        module: the module whose ``main(program)`` reads the arguments of a command without a config.
    """

    text: str
    config: str = ""
    module: str = ""


COMMANDS = {
    "train": Command("trains a model: litdiffusion train model=unet data=mnist", "train"),
    "sample": Command("draws samples from a checkpoint, or at once: litdiffusion sample digits", "sample"),
    "evaluate": Command("measures samples of checkpoints, for any sampler and number of steps", "evaluate"),
    "likelihood": Command("measures the likelihood of held-out data", "likelihood"),
    "inpaint": Command("draws what fits the known part of an image or a point", "inpaint"),
    "interpolate": Command("walks between classes or noises, as a GIF", "interpolate"),
    "export": Command("writes safetensors, a config and a card, for others or the hub", "export"),
    "check": Command("trains an experiment and compares its number with the expected one", "train"),
    "compare": Command("compares the jobs of a sweep, finished or not", module="litdiffusion.commands.comparing"),
    "report": Command("writes report.html of a run or a sweep", module="litdiffusion.commands.reporting"),
    "init": Command("starts a project: litdiffusion init my_project", module="litdiffusion.commands.starting"),
}
COMPLETION = ("-sc", "--shell-completion")
BAD_INPUT = 2


def main() -> None:
    """``litdiffusion COMMAND ...``. Python also finds modules in the current folder, as for ``python -m``."""
    arguments = sys.argv[1:]
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(overview())
    elif name == "--version":
        print(f"litdiffusion {version('litdiffusion')}")
    elif name.split("=")[0] in COMPLETION:
        _complete()
    elif name in COMMANDS:
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        del sys.argv[1]
        run(name, f"litdiffusion {name}", before=[name])
    else:
        print(f"error: {_unknown(name)}", file=sys.stderr)
        sys.exit(BAD_INPUT)


def script(name: str) -> None:
    """A script of a checkout, which is the command ``name``."""
    run(name, f"python {sys.argv[0]}")


def run(name: str, typed: str, before: Sequence[str] = ()) -> None:
    """Runs a command with the arguments ``sys.argv[1:]``.

    Args:
        typed: how the user called it, for its help.
        before: words that stand before the arguments when Lightning starts further processes.
    """
    command = COMMANDS[name]
    if command.module:
        try:
            import_module(command.module).main(typed)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(BAD_INPUT)
        return
    import hydra

    from litdiffusion.commands import cli, jobs
    from litdiffusion.config.paths import CONF

    job = hydra.main(version_base="1.3", config_path=str(CONF), config_name=command.config)(getattr(jobs, name))
    cli.run(job, CONF, command.config, typed, before)


def overview() -> str:
    """What ``litdiffusion --help`` prints."""
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "litdiffusion: trains diffusion models and draws from them.",
            "",
            *(f"  litdiffusion {name:{width}}  {command.text}" for name, command in COMMANDS.items()),
            "",
            "litdiffusion COMMAND --help lists what a command takes.",
            'In bash: eval "$(litdiffusion -sc install=bash)" completes commands, groups and choices on TAB.',
        ]
    )


def _unknown(name: str) -> str:
    if "=" in name or name.startswith("-"):
        return f"a command comes first, such as litdiffusion train {name} (one of {', '.join(COMMANDS)})"
    return f"there is no command {name}{nearest(name, list(COMMANDS))} (one of {', '.join(COMMANDS)})"


def _complete() -> None:
    """Hydra's completion, which knows one config per program: the command in the line says which one."""
    name, line = "train", os.environ.get("COMP_LINE")
    if line is not None and "query=" in " ".join(sys.argv[1:]):
        program, *rest = line.split()
        if not rest or (len(rest) == 1 and not line.endswith(" ")):
            print(" ".join(name for name in COMMANDS if name.startswith(rest[0] if rest else "")))
            return
        name = rest[0]
        if name not in COMMANDS or not COMMANDS[name].config:
            return
        after = line.partition(f" {name} ")[2]
        os.environ["COMP_LINE"] = f"{program} {after.lstrip()}"
    run(name, "litdiffusion")
