"""Every command that README.md and docs/ show, and how the tests run it.

The table holds commands as they are shown (comments, line breaks and repeated spaces aside). A command runs as it
stands, with words appended that make it small, the first pass of a loop, or elsewhere: in a test that is named, or in a
recipe of the Makefile.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

TINY = (
    " --set data.train_images=240 --set data.test_images=60 --set evaluation.neighbours=20"
    " --set evaluation.probe_iterations=5 --set compute.server_threads=1"
)
"""Few images; short evaluations."""
SHORT = f" -n 1 --quiet --set epochs=1 --set steps_per_epoch=2 --set federation.sync_freq=1{TINY}"
"""Two steps of one rank: what else the command says is as shown."""
RANKS = f" --quiet --set epochs=1 --set steps_per_epoch=2 --set federation.sync_freq=1{TINY}"
"""Two steps, with as many ranks as are shown."""
UNOFFICIAL = " --set data.allow_unofficial=true"
"""The images of the tests are made up."""
NARROW = " --data-dir DATA --set model.width=4 --set contrast.memory_length=64 --set model.key_dim=16"
"""For the published sizes of network and memory."""
STAGES = (
    f"{SHORT}{UNOFFICIAL} --set pretraining.epochs=1 --set pretraining.auxiliary_images=64 --set pretraining.batch=16"
    " --set evaluation.bank_images=60 --set client.batch_size=2"
)
PLAN = f"{TINY} --set model.width=4 --set client.batch_size=2"
"""A plan rehearses a few steps, and measures the machine."""
ATTACK = " -n 1 --quiet --seeds 1 --effort 0.02 --images 16"
GRID = f"{TINY} --set epochs=1 --set steps_per_epoch=2 --set federation.sync_freq=1"
SMALL_TABLE = GRID + " --set client.count=5 --set model.width=4"
"""A grid must be tabulated with the settings with which it was run."""
PYTHON = """
import mocosfl_mpi.api as api
def small(config, *words, simulate=api.simulate, **named):
    data = {"train_images": 240, "test_images": 60}
    evaluation = {"neighbours": 20, "probe_iterations": 5}
    length = {"epochs": 2, "steps_per_epoch": 2, "federation.sync_freq": 1}
    threads = {"server_threads": 1}
    return simulate(api.Config(config, length, data=data, evaluation=evaluation, compute=threads), *words, **named)
api.simulate = small
"""
"""Before blocks of Python: what they simulate is small, too."""


@dataclass(frozen=True)
class Row:
    """How a command is run."""

    extra: dict[str, str] = field(default_factory=dict)
    """Appended words, by subcommand of `mocosfl`; for other programs under an empty name."""
    codes: tuple[int, ...] = (0,)
    """Exit codes that are right."""
    loop: bool = False
    """It is a loop, of which the first pass is run."""
    elsewhere: str = ""
    """Not here, but in this test (`FILE::NAME`) or in this recipe of the Makefile (`make TARGET`)."""

    def shortened(self, command: str) -> str:
        """What is run of the command."""
        return re.sub(r"\bin (\S+?)(?: [^;]*)?;", r"in \1;", command) if self.loop else command


AS_SHOWN = Row()


def small(words: str, *codes: int) -> Row:
    """With words appended, whatever the subcommand."""
    return Row({"": words}, codes or (0,))


def by(**extra: str) -> Row:
    return Row(extra)


def once(**extra: str) -> Row:
    """The first pass of a loop."""
    return Row(extra, loop=True)


def there(place: str) -> Row:
    return Row(elsewhere=place)


CLUSTER = "tests/cluster/test_slurm.py::"
CLUSTER_FILES = "tests/packaging/test_cluster_files.py::"
WHEEL = "tests/packaging/test_distribution.py::test_the_installed_wheel_runs_alone"
EVERY_PAGE: dict[str, Row] = {
    "make demo": by(run=SHORT),
    "make test": there("make test"),
    "make test-slow": there("make test-slow"),
    "make test-docs": there("make test-docs"),
    "pytest tests/device --device cuda": there("tests/device/test_device.py::test_it_computes_what_processors_compute"),
    "make test-cluster": there("make test-cluster"),
    "make evidence DATA=DIR": there("tests/unit/grid/test_evidence.py::test_results_are_of_the_experiments_described"),
    "make test-pages": there("make test-pages"),
    "make test-packaging": there("make test-packaging"),
    "make lint": there("make lint"),
    "python3 -m venv .venv": there("make demo"),
    "source .venv/bin/activate": AS_SHOWN,
    'pip install -e ".[mpich,analysis]"': there("make demo"),
    'pip install -e ".[analysis]"': there("make demo"),
    "mocosfl doctor -n 3": small("", 0, 1),
    "mocosfl doctor -n 3 --out runs": small("", 0, 1),
    "mocosfl doctor -n 4 --out runs": small(" -n 2", 0, 1),
    "mocosfl doctor --data-dir DATA": small(" -n 1", 0, 1),
    "mocosfl download cifar10 --data-dir DATA": there(
        "tests/unit/data/test_sources.py::test_a_failing_download_is_bad_input"
    ),
    # installations
    "python3 -m venv env && . env/bin/activate": there(WHEEL),
    "pip install 'mocosfl_mpi-0.1.0-py3-none-any.whl[mpich]'": there(WHEEL),
    "python -m venv /opt/mocosfl/0.1.0": there(WHEEL),
    "/opt/mocosfl/0.1.0/bin/pip install mocosfl_mpi-0.1.0-py3-none-any.whl": there(WHEEL),
    "module load python mpich": there(CLUSTER_FILES + "test_the_module_file_puts_the_command_on_the_path"),
    "module load mocosfl": there(CLUSTER_FILES + "test_the_module_file_puts_the_command_on_the_path"),
    # no Apptainer here: what the definition says is looked at
    "apptainer build --build-arg wheel=dist/mocosfl_mpi-0.1.0-py3-none-any.whl mocosfl.sif "
    "jobs/apptainer/mocosfl.def": there(CLUSTER_FILES + "test_its_sections_are_shell"),
    "srun --mpi=pmi2 apptainer run mocosfl.sif run mine.toml --out runs/mine": there(
        CLUSTER_FILES + "test_its_sections_are_shell"
    ),
    "mocosfl doctor -n 2": small("", 0, 1),
    "mocosfl run smoke": small(" -n 1 --quiet"),
    "source <(mocosfl completion bash)": AS_SHOWN,
    "mocosfl completion zsh > ~/.zfunc/_mocosfl": AS_SHOWN,
    "mocosfl completion fish > ~/.config/fish/completions/mocosfl.fish": AS_SHOWN,
    "mocosfl completion tcsh > ~/.mocosfl.tcsh": AS_SHOWN,
    "mocosfl presets": AS_SHOWN,
    "mocosfl presets quickstart > mine.toml": AS_SHOWN,
    "mocosfl partition mine.toml": AS_SHOWN,
    # plans
    "mocosfl plan mine.toml -n 3": small(" -n 1" + PLAN),
    "mocosfl plan mine.toml --solve ranks": small(PLAN),
    "mocosfl plan mine.toml -n 3 --save-profile cluster.json": small(" -n 2" + PLAN),
    "mocosfl plan mine.toml -n 3 --profile cluster.json": small(" -n 2" + PLAN),
    "mocosfl plan mine.toml -n 3 --solve clients": small(" -n 1" + PLAN),
    "mocosfl plan mine.toml -n 16 --save-profile node.json": small(" -n 2" + PLAN),
    "mocosfl plan mine.toml -n 16 --profile node.json": small(" -n 2" + PLAN),
    "mocosfl plan mine.toml --profile node.json --solve ranks": small(PLAN),
    "mocosfl plan cifar10-1000clients-cut2 --published-accounting": AS_SHOWN,
    "mocosfl plan smoke --set method=fl_monaco": AS_SHOWN,
    "mocosfl plan taressfl-quick --stage pretrain -n 3": small(" -n 1" + PLAN),
    "mocosfl plan taressfl-quick -n 3": small(" -n 1" + PLAN),
    # runs
    "mocosfl run mine.toml -n 3 --set model.cut_layer=2": small(SHORT),
    "mocosfl run mine.toml -n 2 --out runs/mine-002": small(SHORT),
    "mocosfl run mine.toml -n 3 --set model.cut_layer=2 --out runs/cut2": small(RANKS),
    "mocosfl run mine.toml -n 2 --set model.cut_layer=2 --out runs/again --quiet": small(SHORT),
    "mocosfl run mine.toml -n 3 --set model.cut_layer=2 --set method=monacosfl --out runs/cut2-mona": small(SHORT),
    "mocosfl run mine.toml -n 2 --set seed=7 --set 'evaluation.label_shares=[0.1]'": small(SHORT),
    "mpirun -n 3 mocosfl run mine.toml": by(run=RANKS),
    "mocosfl run cifar10-quick -n 3 --data-dir DATA": small(SHORT + UNOFFICIAL),
    "mocosfl run quickstart -n 3 --data-dir DATA --set data.source=image-folder --set data.folder=birds "
    "--set data.image_size=32": small(SHORT + " --set data.train_images= --set data.test_images= --set client.count=4"),
    "mocosfl run quickstart -n 3 --out runs/mine": small(SHORT),
    "mocosfl run quickstart -n 5 --out runs/mine --max-hours 7.5 --checkpoint-every 2epochs": small(SHORT),
    "mocosfl recover runs/mine": AS_SHOWN,
    "mocosfl inspect runs/mine-001": AS_SHOWN,
    "mocosfl inspect runs/cut2": AS_SHOWN,
    "mocosfl watch runs/mine-001": AS_SHOWN,
    "mocosfl watch runs/cut2": AS_SHOWN,
    "mocosfl watch runs/table2": AS_SHOWN,
    "mocosfl watch runs/table2 --once": AS_SHOWN,
    "mocosfl watch runs/table2 --html table2.html": AS_SHOWN,
    "mocosfl report runs/mine-001": AS_SHOWN,
    "mocosfl report runs/cut2 runs/cut2-mona -o cut2.html": AS_SHOWN,
    "mocosfl report runs/table2 --published jobs/configs/table2.toml": AS_SHOWN,
    'mocosfl report runs/a runs/b runs/c -o compared.html --title "Three cuts"': AS_SHOWN,
    "mocosfl export runs/mine-001 --to parquet -o tables": AS_SHOWN,
    "mocosfl export RUN --to csv -o csv": AS_SHOWN,
    "mocosfl export RUN --to parquet -o parquet": AS_SHOWN,
    "mocosfl export RUN --to tensorboard -o logs": AS_SHOWN,
    "mocosfl export RUN --to torch -o encoder": AS_SHOWN,
    "mocosfl diff runs/mine-001 runs/mine-002": small("", 1),
    "mocosfl diff runs/cut2 runs/again": AS_SHOWN,
    "mocosfl retime runs/mine-001 --network 4g": AS_SHOWN,
    "mocosfl retime runs/mine-001 --device raspberry-pi-4 --network wifi --server workstation": AS_SHOWN,
    "mocosfl retime runs/mine-001 --device my-board.toml --stragglers 0.5 --seed 1 --target 60 --json": AS_SHOWN,
    # evaluation
    "mocosfl run mine.toml --set 'evaluation.label_shares=[0.01, 0.1]'": small(
        SHORT + " --set 'evaluation.label_shares=[0.1]'"
    ),
    "mocosfl run mine.toml --set evaluation.fine_tune_share=0.1": small(SHORT + " --set evaluation.fine_tune_epochs=1"),
    "mocosfl run mine.toml --set evaluation.transfer=cifar100 --data-dir DATA": small(SHORT + UNOFFICIAL),
    "mocosfl run mine.toml --set evaluation.per_client=true": small(SHORT),
    "mocosfl run mine.toml --set evaluation.published_probe=true": small(SHORT),
    "mocosfl run mine.toml --set method=fedema --set evaluation.own_models=10": small(
        SHORT + " --set evaluation.own_models=2"
    ),
    # the pages on settings
    **{
        f"mocosfl run quickstart -n 3 {words}": small(SHORT)
        for words in (
            "--set method=monacosfl --set federation.momentum_every=4",
            "--set method=monacosfl --set federation.momentum_compression=int8",
            "--set federation.alignment=momentum_reset",
            "--set client.rich_share=0.2 --set client.rich_batch_factor=4 --set partition.rich_data=0.5",
            "--set reliability.client_dropout=0.2 --set reliability.sync_miss=0.3",
            "--set reliability.query_loss=0.05 --set reliability.gradient_loss=0.05",
            "--set communication.smashed=int8 --set communication.gradient=topk",
            "--set defence.clip=10 --set defence.noise=gaussian --set defence.noise_scale=5",
            "--set defence.dropout=0.2 --set defence.keep_share=0.3 --set defence.levels=16",
            "--set defence.nopeek=1",
        )
    },
    "mocosfl run quickstart -n 3 --set communication.download_every=4": small(SHORT + " --set steps_per_epoch=4"),
    "mocosfl run quickstart -n 3 --set communication.loss_threshold=0.01 --set communication.warmup_epochs=2": small(
        SHORT + " --set epochs=4"
    ),
    "mocosfl run cifar10-100clients-cut1 --set client.rich_share=0.2 --set client.rich_batch_factor=16 "
    "--set partition.rich_data=0.8": small(
        f"{SHORT}{UNOFFICIAL}{NARROW}"
        " --set client.count=10 --set client.batch_size=1 --set client.rich_batch_factor=2"
    ),
    "mocosfl run cifar10-100clients-cut1 --set client.rich_share=0.2 --set model.rich_cut_layer=3": small(
        f"{SHORT}{UNOFFICIAL}{NARROW}"
        " --set client.count=10 --set client.batch_size=1"
    ),
    "for k in 1 2 4 8; do\nmocosfl run cifar10-quick -n 3 --set method=monacosfl --set federation.momentum_every=$k "
    "--out runs/every-$k\ndone": once(run=SHORT + UNOFFICIAL + " --data-dir DATA"),
    # methods
    "mocosfl run quickstart -n 3": small(SHORT),
    "mocosfl run quickstart -n 3 --set method=monacosfl --set model.cut_layer=6": small(SHORT),
    "mocosfl run quickstart --set method=central --set client.batch_size=100": small(
        SHORT + " --set client.batch_size=20"
    ),
    "mocosfl run quickstart --set method=fedavg --set client.count=1 --set client.sampling_ratio=1.0 "
    "--set partition.kind=iid": small(SHORT),
    "mocosfl run quickstart -n 3 --set method=fl_simclr --set federation.sync_freq=1 --set client.batch_size=20": small(
        SHORT
    ),
    **{
        f"mocosfl run quickstart -n 3 --set method={method} --set federation.sync_freq=1": small(SHORT)
        for method in ("fedavg", "fl_moco", "fl_byol", "fl_simsiam")
    },
    **{
        f"mocosfl run quickstart -n 3 --set method={method} --set federation.sync_freq=1": small(
            SHORT + " --set epochs=2"
        )
        for method in ("fedu", "fedema")
    },
    **{
        f"mocosfl run quickstart -n 3 --set method={words}": small(SHORT)
        for words in (
            "sfl_v1 --set client.batch_size=10",
            "sfl_v2 --set client.batch_size=10",
            "split_vanilla --set epochs=60",
            "split_u_shaped --set epochs=60",
            "split_vertical",
            "standalone",
        )
    },
    # experts
    "mocosfl pretrain taressfl-quick -n 3 --data-dir DATA --out expert": small(STAGES),
    "mocosfl run taressfl-quick -n 3 --data-dir DATA --set client.pretrained=expert": small(STAGES),
    "mocosfl run mine.toml --set defence.resistance=2.0": small(SHORT),
    "mocosfl inspect expert": AS_SHOWN,
    "mocosfl slurm taressfl-quick --stage pretrain -n 8 --data-dir DATA": small(UNOFFICIAL),
    "mocosfl slurm taressfl-quick --both --submit -n 8 --data-dir DATA": there(
        "tests/unit/test_slurm.py::test_both_stages_are_submitted_and_the_run_waits_for_the_expert"
    ),
    "mocosfl pretrain quickstart -n 3 --set method=ressfl --set model.bottleneck=C8S1noRELU "
    "--set client.batch_size=10 --set views.size=16 --set pretraining.auxiliary=embedded --set pretraining.epochs=10 "
    "--set pretraining.lr=0.05 --set defence.resistance=0.3 --set defence.resistance_ssim=0.5 --out expert": small(
        SHORT + " --set pretraining.epochs=1 --set pretraining.auxiliary_images=64 --set pretraining.batch=16"
    ),
    "mocosfl run quickstart -n 3 --set method=ressfl --set model.bottleneck=C8S1noRELU --set client.batch_size=10 "
    "--set views.size=16 --set client.pretrained=expert --set client.lr=0.005 --set server.lr=0.05 "
    "--set defence.resistance=0.3 --set defence.resistance_ssim=0.5 --set defence.resistance_every=5 "
    "--set defence.resistance_decoder=conv_normN0C16": small(SHORT),
    "for s in 1 2 3; do for r in 2.0 1e-9; do\n"
    "mocosfl pretrain taressfl-quick -n 3 --data-dir DATA --set seed=$s --set defence.resistance=$r "
    "--out expert-$r-$s\n"
    "mocosfl run taressfl-quick -n 3 --data-dir DATA --set seed=$s --set defence.resistance=$r "
    "--set client.pretrained=expert-$r-$s --out run-$r-$s\n"
    "mocosfl attack run-$r-$s --attacks all --seeds 3 --effort 0.1 --images 64 --trained "
    "--data-dir DATA\ndone; done": once(
        pretrain=STAGES, run=STAGES, attack=ATTACK + " --attacks ridge"
    ),
    # a method of one's own
    "patch -p1 < fl_monaco.diff": AS_SHOWN,
    "mocosfl run smoke -n 2 --set method=fl_monaco --set federation.sync_freq=1 --out runs/new": small(" --quiet"),
    "mocosfl run smoke -n 1 --set method=fl_monaco --set federation.sync_freq=1 --out runs/one-rank": small(" --quiet"),
    "mocosfl run smoke -n 2 --set method=fl_moco --set federation.alignment=online_and_momentum "
    "--set federation.sync_freq=1 --out runs/pieces": small(" --quiet"),
    # adversaries
    "mocosfl attack RUN": small(ATTACK + " --attacks ridge"),
    "mocosfl attack RUN --attacks ridge,linkage -n 3": small(ATTACK),
    "mocosfl attack runs/mine-001 -n 3": small(ATTACK + " --attacks ridge"),
    "mocosfl audit runs/mine-001": small(ATTACK + " --attacks ridge"),
    "mocosfl audit RUN --require 'reconstruction.ssim<=0.3'": small(ATTACK + " --attacks ridge", 0, 3),
    "mocosfl privacy-depth runs/small-privacy-depth": small(ATTACK + " --attacks ridge"),
    # grids
    **{
        f"mocosfl grid jobs/configs/{name}.toml --table": AS_SHOWN for name in ("table1", "table3", "fig3b", "fig7")
    },
    "mocosfl grid jobs/configs/table2.toml": AS_SHOWN,
    "mocosfl grid jobs/configs/small/table2.toml": AS_SHOWN,
    "mocosfl grid jobs/configs/small/table2.toml --run -n 3": small(
        f" -n 1 --only cut1-clients5{SMALL_TABLE}"
    ),
    "mocosfl grid jobs/configs/small/table2.toml --table": small(SMALL_TABLE),
    "mocosfl grid jobs/configs/small/table2.toml --json": small(SMALL_TABLE),
    **{
        f"mocosfl grid jobs/configs/{name}.toml --slurm --data-dir DATA > {out}.sh": small(UNOFFICIAL)
        for name, out in (
            ("table2", "table2"), ("table3", "table3"), ("table3", "t3"), ("fig5", "fig5"), ("monacosfl", "monacosfl"),
        )
    },
    **{
        f"mocosfl grid jobs/configs/evidence/{name}.toml --table": small(GRID)
        for name in ("alignment", "whole-network", "frequency", "clients", "recipe")
    },
    **{
        f"mocosfl grid jobs/configs/evidence/{name}.toml --run --data-dir DATA": small(f" --only {only}{GRID}")
        for name, only in (
            ("alignment", "cut1-mocosfl"), ("whole-network", "mocosfl"), ("frequency", "1"), ("clients", "5"),
            ("recipe", "published"),
        )
    },
    "mocosfl grid jobs/configs/evidence/defences.toml --run --data-dir DATA --out runs/evidence/defences": small(
        f" --only nopeek{GRID}"
    ),
    "mocosfl grid jobs/configs/small/privacy-depth.toml --run --data-dir DATA --out runs/evidence/depth": small(
        f" --only cut_layer2-mocosfl{GRID}"
    ),
    "mocosfl privacy-depth runs/evidence/depth --seeds 3 --effort 0.1 --data-dir DATA": small(
        f"{ATTACK} --attacks ridge"
    ),
    "mocosfl attack runs/evidence/defences/NAME-seed0 --attacks ridge,decoder_conv_n0c16,linkage --seeds 3 "
    "--effort 0.2 --images 64 --trained --data-dir DATA": small(ATTACK + " --attacks ridge"),
    # clusters
    "mocosfl slurm mine.toml --nodes 2 -n 32": AS_SHOWN,
    "mocosfl slurm mine.toml --nodes 2 -n 32 --time 8:00:00": AS_SHOWN,
    "mocosfl slurm mine.toml -n 16 --profile node.json": AS_SHOWN,
    "mocosfl slurm quickstart -n 8 --submit": there(CLUSTER + "test_slurm_command_submits_what_it_prints"),
    "sbatch jobs/one_node.sbatch mine.toml": there(CLUSTER + "test_one_node"),
    "sbatch jobs/several_nodes.sbatch mine.toml": there(CLUSTER + "test_launchers_inside_a_job"),
    "sbatch jobs/array.sbatch mine.toml": there(CLUSTER + "test_array"),
    "srun --mpi=pmi2 mocosfl run mine.toml": there(CLUSTER + "test_launchers_inside_a_job"),
    # figures
    "python analysis/accuracy_curves.py runs/mine-001": AS_SHOWN,
    "python analysis/accuracy_curves.py runs/cut2 runs/cut2-mona --out figures": AS_SHOWN,
    "python analysis/health.py runs/cut2 runs/cut2-mona --out figures": AS_SHOWN,
    "python analysis/accuracy_curves.py runs/table2 --out figures": AS_SHOWN,
    "python analysis/accuracy_curves.py runs/evidence-whole-network --format png --out docs/images": AS_SHOWN,
    "python analysis/comparison.py runs/*-seed0 runs/*-seed1 --format pdf,csv --published jobs/configs/table2.toml": (
        AS_SHOWN
    ),
    "python analysis/leakage.py runs/evidence/defences/*-seed0": AS_SHOWN,
    "python analysis/rank_timeline.py runs/mine-001": AS_SHOWN,
    # benchmarks
    "python benchmarks/step.py --cut 1 --data-dir DATA": there("tests/unit/test_benchmarks.py::test_step"),
    "python benchmarks/step.py --cut 1 --data-dir DATA --ranks 3": there("tests/unit/test_benchmarks.py::test_step"),
    "benchmarks/gpu.sh DATA": there("tests/device/test_device.py::test_it_computes_what_processors_compute"),
    "mocosfl run mine.toml -n 1 --set compute.device=cuda": small("", 2),  # where there is no GPU
    "mocosfl slurm mine.toml -n 3 --gpus 2 --set compute.device=cuda": AS_SHOWN,
    "python benchmarks/clients.py --cut 2": there("tests/unit/test_benchmarks.py::test_clients"),
    "python benchmarks/exchange.py": there("tests/unit/test_benchmarks.py::test_exchange"),
    "python benchmarks/pipeline.py --data-dir DATA": there("tests/unit/test_benchmarks.py::test_pipeline"),
    "python benchmarks/scale.py --data-dir DATA": small(
        " --ranks 1 --only few --set model.width=4 --set contrast.memory_length=64 --set data.train_images=240"
        " --set data.test_images=60 --set client.count=20 --set epochs=2 --set steps_per_epoch=3 --set model.key_dim=16"
    ),
    "python benchmarks/precision.py --data-dir DATA --out runs/precision": small(
        f" --steps 50 --seeds 2{TINY} --set steps_per_epoch=1 --set federation.sync_freq=1"
        " --set evaluation.bank_images=60"
    ),
    "python benchmarks/plan.py": small(" --only 'smoke of 100 clients' --set epochs=2"),
    "python benchmarks/small_scale.py --data-dir DATA --out runs/small-scale": small(
        f" --ranks 1 --only quick-s0{GRID} --set evaluation.bank_images=60"
    ),
    **{
        f"python benchmarks/small_scale.py --data-dir DATA --out runs/small-scale --only {group}": small(
            f" --ranks 1 --only {one}{GRID} --set evaluation.bank_images=60"
        )
        for group, one in (
            ("quick", "quick-s0"), ("control", "control-mocosfl-s0"), ("aligned", "aligned-mocosfl-s0"),
            ("grid", "grid-20-cut1-mocosfl"),
        )
    },
}  # fmt: skip
