"""The embedded trainer on recorded samples, in a process of its own, as `trl_trainer` is in its.

`python -m benchmarks.rivals.our_trainer FOLDER` reads `work.json` and `samples.json`: the first group warms up, the
others are packed and passed over once, by `algorithm.policy_gradient_pass` with all that a window has (the distance to
the parent after each step included), but for the trust region's bound, which would end the pass over answers that no
policy gave. `result.json` has the CPU seconds and the tokens of the pass.

`python -m benchmarks.rivals.our_trainer FOLDER window` trains a checkpoint on all of the samples as a run of the assets
does, Dagster's modules loaded, and notes the process's peak memory.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babylon_assets.config.settings import Settings, prepare_libraries
from benchmarks.datapath.memory import peak_mb
from benchmarks.rivals.samples import RecordedSample, dataset_samples, read_samples

if TYPE_CHECKING:
    import torch

#: A bound of KL that no step reaches, in nats a token.
NO_BOUND = 100.0


def main() -> None:
    """Train as the folder's files say."""
    folder = Path(sys.argv[1])
    work = json.loads((folder / "work.json").read_text())
    settings = Settings(home=folder, base_model=work["base"], train_threads=work["threads"], max_kl=NO_BOUND)
    prepare_libraries(settings)
    groups = read_samples(folder / "samples.json")
    if sys.argv[2:] == ["window"]:
        _train_window(settings, groups)
        result: dict[str, Any] = {"peak_mb": peak_mb()}
    else:
        result = {"steps": [_timed_pass(settings, groups)]}
    (folder / "result.json").write_text(json.dumps(result))


def _train_window(settings: Settings, groups: Sequence[Sequence[RecordedSample]]) -> None:
    import babylon_assets.definitions  # noqa: F401 - what a run's process has loaded
    from babylon_assets.training.backend import CheckpointPlace, TrainingRequest
    from babylon_assets.training.backends.embedded.in_process import train_embedded
    from babylon_assets.training.selection import Selection

    request = TrainingRequest(
        base_model=str(settings.training.base_model),
        chain=settings.model_name,
        samples=Selection(list(dataset_samples(groups)), [], {}),
        manifest={},
        place=CheckpointPlace(1, None),
        parent_path="",
    )
    train_embedded(settings, request)


def _timed_pass(settings: Settings, groups: Sequence[Sequence[RecordedSample]]) -> dict[str, float]:
    import torch

    from babylon_assets.training.backends.embedded.manifest import trainer_settings
    from babylon_assets.training.backends.embedded.trainer import Trainer, TrainerSettings
    from babylon_assets.training.capacity import choose_threads

    base = str(settings.training.base_model)
    torch.set_num_threads(choose_threads(settings, base))
    chosen = TrainerSettings(**trainer_settings(settings, base))
    trainer = Trainer(base, None, chosen)
    _take_steps(trainer, groups[:1], chosen)
    seconds = _take_steps(trainer, groups[1:], chosen)
    return {"seconds": seconds, "tokens": sum(sample.tokens for group in groups[1:] for sample in group)}


def _take_steps(trainer: Any, groups: Sequence[Sequence[RecordedSample]], chosen: Any) -> float:
    """Pack the groups and pass over them once; the seconds of this process on a CPU."""
    from babylon_assets.training.backends.embedded.algorithm import policy_gradient_pass

    started = time.process_time()
    config: Any = {"ppo": True, "epsilon": chosen.clip_epsilon}
    for _ in policy_gradient_pass(trainer, _packed(groups, chosen.row_tokens), chosen.rows_per_step, config):
        pass
    return time.process_time() - started


def _packed(groups: Sequence[Sequence[RecordedSample]], row_tokens: int) -> dict[str, torch.Tensor]:
    import torch
    from art.preprocessing.pack import packed_tensors_from_tokenized_results

    from babylon_assets.training.backends.embedded.art_backend import longest_row
    from babylon_assets.training.recorded_tokens import tokenized

    row = longest_row((sample.tokens for group in groups for sample in group), row_tokens)
    packed = packed_tensors_from_tokenized_results(list(tokenized(dataset_samples(groups))), row, pad_token_id=0)
    return {name: value for name, value in packed.items() if isinstance(value, torch.Tensor)}


if __name__ == "__main__":
    main()
