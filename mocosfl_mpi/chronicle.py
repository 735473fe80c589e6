"""From events of the loop to rows of the record: the two ledgers, the drift, the health of the features."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mocosfl_mpi.clients.reliability import Delivery
from mocosfl_mpi.clients.wealth import factors
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.config import Config
from mocosfl_mpi.errors import RunFailed
from mocosfl_mpi.evaluation.health import effective_rank, feature_std, hardness
from mocosfl_mpi.evaluation.judge import Monitor
from mocosfl_mpi.meter import Meter
from mocosfl_mpi.methods import MIXING
from mocosfl_mpi.privacy.resistance import SSIM_SERIES
from mocosfl_mpi.record.writer import Recorder
from mocosfl_mpi.server.fed_server import Drift
from mocosfl_mpi.server.report import StepReport
from mocosfl_mpi.simulated import Arrays, Ids, Mask, Simulated
from mocosfl_mpi.speaker import Speaker

AGES = 30


def ages(config: Config) -> int:
    """Age bins of the feature memory: whole updates it holds, at most 30."""
    return max(1, min(AGES, config.contrast.memory_length // keys_per_update(config)))


def keys_per_update(config: Config) -> int:
    """Keys that enter the feature memory in a step in which nothing is lost, of a pool with its share of the rich."""
    every = config.client.batch_size * int(factors(config).sum()) * (1 if config.contrast.symmetric == "off" else 2)
    return every * config.pool_size // config.client.count


class Chronicle:
    """Collects what happens and hands whole rows to the recorder. Exists on every rank, records on rank 0."""

    def __init__(
        self,
        config: Config,
        cluster: Cluster,
        exchange: Exchange,
        meter: Meter,
        speaker: Speaker,
        recorder: Recorder | None,
        simulated: Simulated,
        path: Path,
    ) -> None:
        self._config = config
        self._cluster = cluster
        self._exchange = exchange
        self._meter = meter
        self._speaker = speaker
        self._recorder = recorder
        self._simulated = simulated
        self._path = path
        self._losses: list[float] = []
        self._hits: list[float] = []
        self._last: StepReport | None = None
        self._steps = 0
        self._keys = 0
        """Keys that have entered the feature memory."""
        self._drawn: Ids = np.empty(0, dtype=np.int64)
        self._present: Mask = np.empty(0, dtype=bool)
        """Who of the ``_drawn`` clients takes part in the epoch."""
        self._rates = np.zeros(config.pool_size)
        self._server_rate = math.nan
        self._start = time.monotonic()
        self.online_momentum_distance = math.nan
        """Mean over the pool of |C-C'|/|C| after the last synchronisation (rank 0)."""
        self.similarity = math.nan
        """Of images to what clients' own attackers draw, mean over the last epoch's pool (rank 0)."""

    def state(self) -> Arrays:
        """What a checkpoint must hold so that the record goes on without a gap (rank 0)."""
        scalars = np.array([self._steps, self.wall_seconds, self.online_momentum_distance])
        own = {"losses": np.array(self._losses), "hits": np.array(self._hits), "scalars": scalars, "rates": self._rates}
        own["keys"] = np.array([self._keys])
        own["similarity"] = np.array([self.similarity])
        return own | self._simulated.state()

    def restore(self, state: Arrays) -> None:
        """The inverse of ``state`` (rank 0). KeyError or ValueError where it is another run's."""
        self._losses, self._hits = state["losses"].tolist(), state["hits"].tolist()
        steps, seconds, self.online_momentum_distance = state["scalars"].tolist()
        self._steps = int(steps)
        self._keys = int(state["keys"][0]) if "keys" in state else self._steps * keys_per_update(self._config)
        self._start = time.monotonic() - seconds
        self._rates = state.get("rates", self._rates)
        self.similarity = float(state["similarity"][0]) if "similarity" in state else math.nan
        self._simulated.restore(state)

    def begin(self, epoch: int) -> None:
        """A session of the run begins, the first or a resumption (rank 0 records it)."""
        if self._recorder is not None:
            session = {"sessions/epoch": epoch, "sessions/step": self._steps, "sessions/ranks": self._cluster.size}
            self._recorder.append("session", session | {"sessions/start": time.time()})
            self._recorder.flush()

    @property
    def steps(self) -> int:
        """Steps recorded since the run began, all sessions together (rank 0)."""
        return self._steps

    @property
    def wall_seconds(self) -> float:
        """Seconds since the run began, without the time between its sessions."""
        return time.monotonic() - self._start

    @property
    def loss(self) -> float:
        """Mean over the epoch's steps so far (rank 0; not a number elsewhere)."""
        return _mean(self._losses)

    def enter(self, drawn: Ids, pool: Ids, server_rate: float) -> None:
        """An epoch begins with this pool, what is left of the clients ``drawn`` for it."""
        self._drawn, self._present = drawn, np.isin(drawn, pool)
        self._rates = np.zeros(len(pool))
        self._server_rate = server_rate
        self._simulated.enter(pool, np.flatnonzero(self._present))

    def step(self, delivery: Delivery, report: StepReport | None, rates: npt.NDArray[np.float64]) -> None:
        """One step is done; ``report`` is the server's (None on other ranks), ``rates`` those of the pool's clients."""
        self._simulated.step(delivery)
        if delivery.trip.down:
            self._rates = rates
        if self._recorder is None or report is None:
            return
        trip, heard, supervised = delivery.trip, int(delivery.heard.sum()), self._config.supervised
        nobody = trip.up and not heard
        if not nobody and not math.isfinite(report.loss):
            self._recorder.flush()
            raise RunFailed(
                f"the loss became {report.loss} at epoch {trip.epoch}, step {self._steps}; earlier rows are in "
                f"{self._path}. Lower server.lr ({self._config.server.lr}) or client.lr ({self._config.client.lr})"
                + ("" if supervised else f", or raise contrast.temperature ({self._config.contrast.temperature})")
            )
        self._recorder.append(
            "step",
            {
                "steps/epoch": trip.epoch,
                "steps/loss": report.loss,
                "steps/accuracy": report.accuracy,
                "steps/learning_rate_server": self._server_rate,
                **self._failures({"steps/heard": heard}),
            },
        )
        self._steps += 1
        self._keys += report.keys_per_update
        self._losses.append(report.loss)
        self._hits.append(report.accuracy)
        self._last = report
        self._speaker.step(trip.epoch, self._config.epochs, report.loss)

    def synchronised(self, epoch: int, drift: Drift | None, present: Mask) -> None:
        """The fed server has averaged those ``present``; ``drift`` is what it found (None on other ranks)."""
        self._simulated.synchronise(present)
        if self._recorder is None or drift is None:
            return
        self.online_momentum_distance = float(drift.online_momentum_distance.mean())
        with self._meter.phase("record"):
            self._recorder.append(
                "sync",
                {
                    "syncs/epoch": epoch,
                    "syncs/step": self._steps - 1,
                    "syncs/clients": self._drawn,
                    "divergence/online_mean": self._placed(drift.online_mean),
                    "divergence/online_momentum": self._placed(drift.online_momentum),
                    "divergence/momentum_mean": self._placed(drift.momentum_mean),
                    "after_sync/online_momentum_distance": self._placed(drift.online_momentum_distance),
                    "after_sync/momentum_spread": self._placed(drift.momentum_spread),
                    **self._failures({"syncs/present": self._placed(present, fill=0)}),
                    **({"after_sync/own_share": self._placed(drift.kept)} if self._config.aligned in MIXING else {}),
                },
            )
            self._recorder.flush()

    def leave(self, more: dict[str, int], told: dict[str, npt.NDArray[np.float64]]) -> None:
        """The epoch is over: gather what every rank has spent and write the epoch's row, and ``more`` of it.

        ``told``: series of the pool's clients ``[P]`` that terms at the cut have filled (rank 0).
        """
        if SSIM_SERIES in told:
            self.similarity = _mean(told[SSIM_SERIES].tolist())
        simulated = self._simulated.take()
        lost = simulated.pop("simulated/lost")
        seconds = self._meter.take()
        idle = self._cluster.take_waited() / max(sum(seconds), 1e-9)
        spent = [seconds, min(idle, 1.0), _resident_bytes(), self._exchange.take_bytes()]
        ranks = self._cluster.gather_json(spent)
        if notice := self._exchange.take_notice():
            self._speaker.say(notice)
        recorder = self._recorder
        if recorder is None or ranks is None or self._last is None:
            return
        with self._meter.phase("record"):
            recorder.append(
                "epoch",
                {
                    "epochs/clients": self._drawn,
                    "epochs/loss": self.loss,
                    "epochs/accuracy": _mean(self._hits),
                    "epochs/learning_rate_server": self._server_rate,
                    "epochs/learning_rate_client": self._placed(self._rates),
                    "epochs/feature_std": _of(feature_std, self._last.queries),
                    "epochs/effective_rank": _of(effective_rank, self._last.queries),
                    **self._hardness(self._last),
                    **simulated,
                    **self._failures({"epochs/present": self._present, "simulated/lost": lost}),
                    **more,
                    **{name: self._placed(values) for name, values in told.items()},
                    "measured/seconds": _padded([rank[0] for rank in ranks], recorder.ranks, math.nan),
                    "measured/idle_share": _padded([rank[1] for rank in ranks], recorder.ranks, math.nan),
                    "measured/resident_bytes": _padded([rank[2] for rank in ranks], recorder.ranks, 0),
                    "measured/mpi_bytes": _padded([rank[3] for rank in ranks], recorder.ranks, 0),
                },
            )
            recorder.flush()
        self._losses, self._hits = [], []

    def _failures(self, values: dict[str, Any]) -> dict[str, Any]:
        """What has failed, where the configuration lets anything fail."""
        return values if self._config.reliability.anything else {}

    def _placed(self, values: npt.NDArray[Any], fill: float = math.nan) -> npt.NDArray[Any]:
        """Rows ``[P, …]`` of the pool's clients at their places among those drawn, and ``fill`` for who dropped out."""
        whole = np.full((len(self._drawn), *values.shape[1:]), fill, dtype=values.dtype)
        whole[self._present] = values
        return whole

    def _hardness(self, report: StepReport) -> dict[str, float | npt.NDArray[np.float64]]:
        found = None
        batch = keys_per_update(self._config)
        written = self._keys - report.keys_per_update  # the rest of the memory still holds initial noise
        memory = report.memory_before
        if memory is not None and len(memory[:written]) >= batch:  # else it has no ages
            temperature = self._config.contrast.temperature
            found = hardness(report.queries, memory[:written], batch, temperature)
        bins = np.full(ages(self._config), np.nan)
        if found is not None:
            bins[: len(found.similarity_by_age)] = found.similarity_by_age
        return {
            "hardness/similarity": bins,
            "hardness/eta": found.eta if found else math.nan,
            "hardness/gamma": found.gamma if found else math.nan,
            "hardness/total": found.total if found else math.nan,
        }

    def evaluated(self, epoch: int, monitor: Monitor | None) -> None:
        """The kNN monitor has looked (None on other ranks)."""
        if self._recorder is None or monitor is None:
            return
        own = monitor.classifier_top1
        self._recorder.append(
            "evaluation",
            {
                "evaluations/epoch": epoch,
                "evaluations/step": self._steps,
                "evaluations/wall_seconds": self.wall_seconds,
                "evaluations/knn_top1": monitor.knn_top1,
                "evaluations/knn_projector_top1": monitor.knn_projector_top1,
                "evaluations/feature_std": monitor.feature_std,
                "evaluations/effective_rank": monitor.effective_rank,
                **({} if own is None else {"evaluations/classifier_top1": own}),
            },
        )
        self._recorder.flush()
        self._speaker.say(
            f"epoch {epoch}/{self._config.epochs}  kNN {monitor.knn_top1:.1f} %  "
            + (f"(projector {monitor.knn_projector_top1:.1f} %)" if own is None else f"classifier {own:.1f} %")
            + f"  feature std {monitor.feature_std:.2f}"
        )


def _mean(values: list[float]) -> float:
    """The mean over the steps that have a value."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _of(measure: Callable[[Tensor], float], queries: Tensor) -> float:
    """A measure of the queries, where there are any."""
    return measure(queries) if len(queries) else math.nan


def _padded(values: list[Any], ranks: int, fill: float) -> npt.NDArray[Any]:
    """One value a rank, and ``fill`` for ranks that another session of the run had and this one has not."""
    own = np.asarray(values)
    padded = np.full((ranks, *own.shape[1:]), fill, dtype=own.dtype)
    padded[: len(own)] = own
    return padded


def _resident_bytes() -> int:
    """The largest resident memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
