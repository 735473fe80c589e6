"""A SLURM batch script for one run, which comes back by itself until the run is complete."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.launch import DEAF, MALLOC, SPIN

LAUNCHES = {
    "mpirun": "mocosfl run -n, which starts the mpiexec beside Python or on PATH",
    "pmi2": "srun --mpi=pmi2: MPICH, Intel MPI, MVAPICH",
    "pmix": "srun --mpi=pmix: Open MPI built with PMIx",
}
"""Ways to start ranks inside an allocation, and which MPI library each belongs to."""

WARNING_SECONDS = 300
"""How long before the time limit SLURM warns: a step and a checkpoint have to fit, and SLURM may be 60 s early."""

CONTINUE = """\
# Start or continue. SLURM warns this shell before time is up (--signal); the launcher passes the warning on to every
# rank. The run then stops after its step with a checkpoint and exit code 75, and the job queues again under its number.
trap '' USR1 # what is still starting ignores it; ranks know their time limit from squeue, too
"${command[@]}" &
run=$!
trap 'kill -USR1 "$run" 2> /dev/null' USR1
trap : TERM # scancel reaches every process; this shell only has to outlive the checkpoint
while kill -0 "$run" 2> /dev/null; do wait "$run"; done
wait "$run"
code=$?
job=$SLURM_JOB_ID
if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then # the last task of an array bears the number of the whole array
    job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
fi
state=$(squeue --noheader --jobs="$job" --format=%T) # a cancelled job is no longer RUNNING and must not come back
if [ "$code" -eq 75 ] && [ "$state" = RUNNING ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 200 ]; then
    scontrol requeue "$job"
fi
exit "$code"
"""
"""The end of every batch script of this project; ``command`` is a bash array, the same words at every start."""

_TIME = re.compile(r"(\d+-)?\d{1,3}(:[0-5]\d){0,2}")
_MEMORY = re.compile(r"[1-9]\d*[KMGT]?")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,-]*")


@dataclass(frozen=True)
class Figure:
    """A number of the request, as SLURM writes it, and where it comes from: an option, a default, an estimate."""

    text: str
    source: str


@dataclass(frozen=True)
class Job:
    """What is asked of SLURM, and what is to be run there.

    ``time`` is the limit of one allocation (SLURM's formats), ``memory`` that of one node. ``python`` starts the
    package's commands; ``arguments`` are those of ``mocosfl run`` without ``-n`` and ``--out``. Without ``out``
    results go to ``runs/NAME-JOBNUMBER`` in the directory of submission.

    With ``tasks`` it is an array of as many jobs, at most ``at_once`` at a time: the task NAME runs ``NAME.toml`` in
    the directory ``arguments[0]``, into ``out/NAME``.
    """

    name: str
    nodes: int
    ranks: int
    cores_per_rank: int
    time: Figure
    memory: Figure
    launch: str
    python: str
    arguments: tuple[str, ...]
    out: str | None = None
    partition: str | None = None
    account: str | None = None
    tasks: tuple[str, ...] = ()
    at_once: int | None = None
    command: str = "run"
    """The command of the package."""
    gpus: int = 0
    """GPUs of each node; the ranks of a node share them in turn."""

    def __post_init__(self) -> None:
        """Refuse what SLURM would refuse, or what would mean something else inside a script.

        Raises
        ------
        BadInput
            A number out of range, a malformed limit or name, a control character.
        """
        for count, number, least, remedy in (
            ("--nodes", self.nodes, 1, "at least one node is needed"),
            ("--cores-per-rank", self.cores_per_rank, 1, "at least one core is needed"),
            ("--gpus", self.gpus, 0, "write how many GPUs of each node are needed, 0 for none"),
            ("--at-once", 1 if self.at_once is None else self.at_once, 1, "at least one job has to run"),
        ):
            if number < least:
                raise BadInput(f"{count} {number}: {remedy}")
        if self.ranks < self.nodes:
            raise BadInput(
                f"-n {self.ranks} with --nodes {self.nodes}: a node would stay empty; ask for at least {self.nodes} "
                f"ranks or fewer nodes"
            )
        if self.launch not in LAUNCHES:
            raise BadInput(f"--launch {self.launch!r}: choose {', '.join(LAUNCHES)}")
        if not _TIME.fullmatch(self.time.text) or not re.search("[1-9]", self.time.text):
            raise BadInput(f"--time {self.time.text!r}: write H:MM:SS, minutes, or D-HH:MM:SS, for example 4:00:00")
        if not _MEMORY.fullmatch(self.memory.text):
            raise BadInput(f"--mem {self.memory.text!r}: write the memory of a node as a number with K, M, G or T: 16G")
        for option, value in (("--partition", self.partition), ("--account", self.account)):
            if value is not None and not _NAME.fullmatch(value):
                raise BadInput(f"{option} {value!r}: letters, digits and _ . , - only")
        if self.tasks and not (self.arguments and self.out):
            raise ValueError("an array needs a directory of configurations and one for results")
        for word in (self.python, *self.tasks, *self.arguments, *([self.out] if self.out else [])):
            if not word.isprintable():
                raise BadInput(f"{word!r} cannot stand in a batch script: it holds a control character")

    @property
    def ranks_per_node(self) -> int:
        """Ranks on the fullest node."""
        return -(-self.ranks // self.nodes)

    @property
    def label(self) -> str:
        """The name in letters that mean nothing to SLURM, a shell or a file system."""
        return re.sub(r"[^A-Za-z0-9_.-]", "_", self.name).lstrip(".-") or "run"


def default_memory(ranks: int, nodes: int) -> Figure:
    """4 GiB for the server and 2 GiB for each rank of a node: enough for the published settings."""
    per_node = -(-ranks // nodes)
    return Figure(f"{4 + 2 * per_node}G", "default: 4 GiB and 2 GiB per rank on the node; --mem changes it")


def script(job: Job) -> str:
    """The batch script: requests with the source of each number, environment, command, continuation."""
    requests = {
        "job-name": (job.label, ""),
        **({"array": (_array(job), f"{len(job.tasks)} runs")} if job.tasks else {}),
        "nodes": (job.nodes, ""),
        "ntasks": (job.ranks, "ranks: one main server, the others host clients"),
        "ntasks-per-node": (job.ranks_per_node, ""),
        "cpus-per-task": (job.cores_per_rank, ""),
        **({"gpus-per-node": (job.gpus, "its ranks share them in turn")} if job.gpus else {}),
        "mem": (job.memory.text, job.memory.source),
        "time": (job.time.text, job.time.source),
        **({"partition": (job.partition, "")} if job.partition else {}),
        **({"account": (job.account, "")} if job.account else {}),
        "output": (f"{job.label}-{'%A_%a' if job.tasks else '%j'}.log", ""),
        "open-mode": ("append", "one log for all allocations of the run"),
        "requeue": (None, "after a node's failure, too, the run continues from its checkpoint"),
        "signal": (f"B:USR1@{WARNING_SECONDS}", "seconds before the time limit"),
    }
    author = "`mocosfl grid`" if job.tasks else "`mocosfl slurm`"
    lines = [
        "#!/bin/bash",
        f"# {job.label}: {job.ranks} ranks on {job.nodes} node{'s' * (job.nodes > 1)}, written by {author}.",
        "# A run longer than one allocation continues in the next until it is complete.",
    ]
    for option, (value, note) in requests.items():
        request = f"#SBATCH --{option}" + ("" if value is None else f"={value}")
        lines.append(f"{request:<38} # {note}" if note else request)
    lines += ["", *_environment(job), "", *_tasks(job), f"command=({_command(job)})", "", CONTINUE]
    return "\n".join(lines)


def _array(job: Job) -> str:
    return f"0-{len(job.tasks) - 1}" + (f"%{job.at_once}" if job.at_once else "")


def _tasks(job: Job) -> Sequence[str]:
    if not job.tasks:
        return []
    names = "\n".join(f"    {shlex.quote(name)}" for name in job.tasks)
    return [f"tasks=(\n{names}\n)", "task=${tasks[SLURM_ARRAY_TASK_ID]:?--array asks for more tasks than there are}"]


def _environment(job: Job) -> Sequence[str]:
    if job.launch == "mpirun":
        if job.nodes == 1:
            return [
                "export HYDRA_LAUNCHER=fork # MPICH on one node: ranks are children of this shell, on all its cores"
            ]
        return [
            "export SLURM_CPU_BIND=none # rank 0 computes with every core of its node while the others wait",
            'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_ON_NODE" # mpirun starts one task per node through srun',
        ]
    return [
        "export SLURM_CPU_BIND=none # rank 0 computes with every core of its node while the others wait",
        f"export SRUN_CPUS_PER_TASK={job.cores_per_rank} # srun does not take it from the job",
        f"export GLIBC_TUNABLES={MALLOC}",
        f"export OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT={SPIN}",
    ]


def _command(job: Job) -> str:
    words = [job.python, "-m", "mocosfl_mpi", job.command]
    given = [shlex.quote(word) for word in job.arguments]
    if job.tasks:
        given[0] += '/"$task".toml'
    start = " ".join([shlex.join(words), *given])
    if job.launch == "mpirun":
        start += f" -n {job.ranks}"
    else:
        start = f"srun --mpi={job.launch} --wait=60 {shlex.join(DEAF)} {start}"
    out = shlex.quote(job.out) if job.out else f'"runs/{job.label}-$SLURM_JOB_ID"'
    if job.tasks:
        out += '/"$task"'
    return f"{start} --out {out}"
