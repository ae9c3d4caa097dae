"""What the processes of a run share that ``torchrun``, Slurm or submitit has started, before they can talk.

Imports no torch.
"""

import os
import random
from datetime import timedelta

KEY = "litdiffusion/run_folder"
INTERACTIVE = ("bash", "interactive")
"""Names by which Lightning too knows a shell on Slurm, where each command is a run of its own."""
WAIT = timedelta(minutes=5)
"""How long a process waits for the first one to name the folder."""


RANKS = ("RANK", "SLURM_PROCID", "SUBMITIT_LOCAL_GLOBALID")
"""Where ``torchrun``, ``srun`` and submitit's local executor tell a process its number."""


def rank() -> int:
    """The number of this process among those that were started together; 0 for a process that stands alone."""
    return int(next((os.environ[name] for name in RANKS if os.environ.get(name)), 0))


def local_tasks() -> int:
    """How many processes submitit's local executor has started for this job; 1 for any other process."""
    return int(os.environ.get("SUBMITIT_LOCAL_NTASKS") or 1)


def meet_local_tasks() -> None:
    """Lets the processes of a job find each other that submitit's local executor has started, as Lightning expects it.

    For Slurm Lightning itself knows the variables. submitit's own ``TorchDistributedEnvironment`` takes the name of the
    host, which a laptop may not resolve.
    """
    if local_tasks() > 1:
        port = random.Random(os.environ["SUBMITIT_LOCAL_JOB_ID"]).randint(20_000, 60_000)  # as submitit draws it
        here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank()), "RANK": str(rank())}
        os.environ.update(here | {"WORLD_SIZE": str(local_tasks())})


def agreed_folder(folder: str, named: bool) -> str:
    """The folder of a run, the same in all of its processes.

    The first process that ``torchrun`` started tells the others its own ``folder``; one that is started again finds the
    folder of before. Processes of ``srun`` take ``outputs/slurm-JOB`` unless the user has ``named`` a folder, so a job
    that is put back into the queue goes on.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return _told_by_the_first(folder)
    many = int(os.environ.get("SLURM_NTASKS") or 1) > 1 and "SLURM_PROCID" in os.environ
    many = many and os.environ.get("SLURM_JOB_NAME") not in INTERACTIVE
    return f"outputs/slurm-{os.environ['SLURM_JOB_ID']}" if many and not named else folder


def _told_by_the_first(folder: str) -> str:
    from torch.distributed import TCPStore  # here, because only processes of torchrun need it

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=WAIT)
    key = f"{KEY}/{os.environ.get('TORCHELASTIC_RUN_ID', '')}"
    if rank() == 0:
        store.compare_set(key, "", folder)
    return store.get(key).decode()
