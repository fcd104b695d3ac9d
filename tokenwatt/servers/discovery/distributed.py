"""Marks of distributed work, whose ranks meet on ports that the kernel chooses (NCCL, Gloo, TCPStore) and are not to be disturbed there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tokenwatt import procfs
from tokenwatt.procfs.processes import read

_LAUNCHED: Final = re.compile(
    # Programs, modules and options (python train.py --deepspeed x.json), alone or within a script; not directories on the way to others.
    r"(?:^|[\s/])-{0,2}(?:"
    r"torchrun|torch\.distributed|deepspeed|accelerate|accelerate-launch|horovod|horovodrun|mpirun|mpiexec|orterun|prterun|"
    r"ipykernel|ipykernel_launcher|dask|dask-\w+|distributed\.(?:nanny|cli)|"
    # What the standard library starts its processes with: python -c "from multiprocessing.spawn import spawn_main; ..."
    r"multiprocessing\.(?:spawn|forkserver|resource_tracker)"
    r")(?:\.\w+)*(?=$|[\s;=])"
    # Workers of Ray by their title, and before they take it (ray: python/ray/_private/workers/default_worker.py).
    r"|^ray::|/ray/_private/workers/"
)

_NAMES: Final = frozenset(
    {
        # torch: distributed/run.py
        b"RANK", b"LOCAL_RANK", b"WORLD_SIZE", b"LOCAL_WORLD_SIZE", b"MASTER_ADDR", b"MASTER_PORT", b"GROUP_RANK", b"GROUP_WORLD_SIZE",
        b"ROLE_RANK", b"TORCHELASTIC_RUN_ID", b"NODE_RANK",
        # Open MPI, MVAPICH, MPICH and Slurm, Horovod
        b"OMPI_COMM_WORLD_RANK", b"OMPI_COMM_WORLD_SIZE", b"MV2_COMM_WORLD_RANK", b"PMI_RANK", b"PMIX_RANK", b"HOROVOD_RANK",
    }
)  # fmt: skip
_SLURM_RANK: Final = b"SLURM_PROCID"
_SLURM_TASKS: Final = frozenset({b"SLURM_NTASKS", b"SLURM_NPROCS", b"SLURM_STEP_NUM_TASKS"})
"""A job of Slurm with one task is as good as any program."""

_BYTES_MAX: Final = 1 << 20


def marks_words(words: Iterable[str]) -> bool:
    """Whether a command line has a mark."""
    return any(_LAUNCHED.search(word) for word in words)


def marks_environment(pid: int, *, root: Path = procfs.PROC) -> bool | None:
    """Whether the environment that a process was started with has a mark. None: it cannot be read.

    It holds secrets: but for the number of Slurm's tasks only its names are looked at, and nothing of it is kept.
    """
    content = read(f"{root}/{pid}/environ", _BYTES_MAX)
    # Who writes a title over its command line writes over its environment as well.
    if content is None or len(content) == _BYTES_MAX or b"=" not in content:
        return None
    several = slurm = False
    for entry in content.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name in _NAMES:
            return True
        slurm |= name == _SLURM_RANK
        several |= name in _SLURM_TASKS and value != b"1"
    return slurm and several
