"""The GPU backend: plans run by WGSL shaders on one graphics card."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from fewbit.plan.plan import Plan
from fewbit.run.executor import Executor, Stored, stored_bytes
from fewbit.run.executor import Weights as AnyWeights
from fewbit.run.gpu.decode import can_choose, decode
from fewbit.run.gpu.device import Adapter, open_device
from fewbit.run.gpu.executor import Executor as GpuExecutor
from fewbit.run.gpu.ops import check_ops, vectors
from fewbit.run.gpu.repack import check_matrix
from fewbit.run.gpu.weights import Weights
from fewbit.run.predictions import Ids, Predictions
from fewbit.run.sampling import Sampling


class GpuBackend:
    """Runs plans on the card of `adapter`; implements `fewbit.run.executor.Backend`."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter

    @property
    def name(self) -> str:
        """`gpu:N` and the card's name."""
        return f"gpu:{self.adapter.index} ({self.adapter.name})"

    def weights(self, plan: Plan, tensors: Mapping[str, Stored]) -> Weights:
        """An empty set of tensors on the card, after a check that all of them fit.

        Raises:
            UnsupportedError: the executor lacks an op of the plan, or a tensor's format.
            DeviceError: the card is too small, or lost.

        """
        ops = plan.to_dicts()
        check_ops(ops)
        plain = vectors(ops)
        for name, (format_, rows, columns) in tensors.items():
            if rows > 1 and name not in plain:
                check_matrix(format_, columns)
        device = open_device(self.adapter)
        device.reserve(sum(map(stored_bytes, tensors.values())), "the weights")
        return Weights(device, plain)

    def executor(self, plan: Plan, weights: AnyWeights, threads: int) -> GpuExecutor:
        """The plan bound to the weights on the card; `threads` is ignored."""
        assert isinstance(weights, Weights)
        return GpuExecutor(plan.to_dicts(), weights)

    def predict(
        self, executor: Executor, cache: Any, tokens: Ids, sequences: Ids, outputs: Ids, acts: str
    ) -> Predictions:
        """As `Executor.forward`; the logits stay on the card."""
        assert isinstance(executor, GpuExecutor)
        return executor.predict(cache, tokens, sequences, outputs, acts)

    def decode(
        self, executor: Executor, cache: Any, token: int, sampling: Sampling,
        seed: int, acts: str, most: int,
    ) -> Generator[int] | None:  # fmt: skip
        """The tokens after `token`, chosen on the card; None if it cannot sample in this way."""
        assert isinstance(executor, GpuExecutor)
        if not can_choose(sampling):
            return None
        return decode(executor, cache, token, sampling, seed, acts, most)

    def discard(self, weights: AnyWeights, executor: Executor | None = None) -> None:
        """Free the card's memory."""
        assert isinstance(weights, Weights)
        if executor is not None:
            assert isinstance(executor, GpuExecutor)
            executor.release()
        weights.release()

    def memory_rate(self, weights: AnyWeights, threads: int) -> float:
        """GB/s (10^9 bytes) of copies within the card's memory."""
        assert isinstance(weights, Weights)
        return weights.device.copy_rate()

    def peak_rate(self, threads: int) -> float | None:
        """None: the peak of a card is not measured."""
        return None
