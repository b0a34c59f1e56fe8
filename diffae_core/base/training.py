"""Notebooks 01 and 04: one training loop for every model, with EMA, and with resuming after a kill."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffae_core.base import checkpoints
from diffae_core.base.devices import has_fast_bfloat16, seeded
from diffae_core.base.validation import check_choice, check_count, check_number

# (indices of the batch's examples, a generator for its randomness) -> the batch's mean loss
BatchLoss = Callable[[Tensor, torch.Generator], Tensor]
MOMENTS = ("exp_avg", "exp_avg_sq")  # what AdamW keeps for each weight


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; docs/recipe.md compares the defaults with other settings.

    Each model's recipe is one of these: ``AUTOENCODER``, ``DIFFUSION``, ``PRIOR``, ``HEAD``, ``CLASSIFIER``. To change
    one setting and keep the rest: ``dataclasses.replace(core.DIFFUSION, epochs=10)``.
    """

    epochs: float = 30  # passes over the examples; a fraction stops within a pass
    batch_size: int = 64  # examples per step
    learning_rate: float = 3e-3  # the peak, after a rise from 0
    learning_rate_schedule: str = "cosine"  # falls to 0 along a half cosine; "constant" stays at the peak
    warmup: float = 0.05  # share of the steps during which the learning rate rises
    weight_decay: float = 0.01  # AdamW's
    gradient_clip: float = 1.0  # a longer gradient is shortened to this, so that a rare bad batch cannot undo the run
    ema_decay: float = 0.998  # share of the averaged weights kept at each step
    bfloat16: bool | None = None  # compute in bfloat16; None: where the device has it built in
    seed: int = 0  # sets the order of the examples, the times and the noise

    def __post_init__(self) -> None:
        schedules = ("cosine", "constant")
        checked = {
            "batch_size": check_count(self.batch_size, "batch_size"),
            "seed": check_count(self.seed, "seed", at_least=0, at_most=2**32 - 1),
            "learning_rate_schedule": check_choice(self.learning_rate_schedule, "learning_rate_schedule", schedules),
            "bfloat16": check_choice(self.bfloat16, "bfloat16", (True, False, None)),
            "weight_decay": check_number(self.weight_decay, "weight_decay", 0, 1e12),
        }
        for name in ("epochs", "learning_rate", "gradient_clip"):
            checked[name] = check_number(getattr(self, name), name, 0, 1e12, above_low=True)
        for name in ("warmup", "ema_decay"):
            checked[name] = check_number(getattr(self, name), name, 0, 1, below_high=True)
        for name, value in checked.items():  # Python's own numbers: NumPy's can't be read back from a checkpoint
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Record:
    """What a training loop yields after each step."""

    step: int  # steps done, from 1
    epoch: float  # passes done
    loss_tensor: Tensor  # on the model's device
    learning_rate: float

    @property
    def loss(self) -> float:
        """The mean loss over this step's batch. Reading it waits for the device: on a GPU, avoid it at every step."""
        return self.loss_tensor.item()


class Training:
    """A training run that can be stopped after any step, saved, and resumed.

    Iterate over it: each step yields a :class:`Record`. What is random in a step depends only on the seed and the
    step's number, so a run that was killed and resumed ends with the same weights as an uninterrupted run. After the
    last step the model holds the averaged (EMA) weights; until then they are in ``ema_model``.

    Args:
        model: the model to train: an ``nn.Module`` with a ``device`` and a ``config``.
        batch_loss: the loss of a batch, from the indices of its examples and a generator for its randomness.
        num_examples: how many examples there are.
        config: how to train.
        data: a fingerprint of the examples; a run is resumed only on the data it was started on.
        finish: called after the last step, when the model holds the averaged weights.
    """

    def __init__(
        self,
        model: Any,
        batch_loss: BatchLoss,
        num_examples: int,
        config: TrainingConfig,
        data: str = "",
        finish: Callable[[], None] = lambda: None,
    ):
        self.model = model
        self.batch_loss = batch_loss
        self.config = config
        self.data = data
        self.finish = finish
        self.num_examples = check_count(num_examples, "the number of training examples")
        self.steps_per_epoch = max(1, num_examples // config.batch_size)
        self.total_steps = max(1, round(config.epochs * self.steps_per_epoch))
        self.step = 0
        self.bfloat16 = has_fast_bfloat16(model.device) if config.bfloat16 is None else config.bfloat16
        self.optimizer = torch.optim.AdamW(
            model.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.ema_model = copy.deepcopy(model).eval().requires_grad_(False)  # the one to sample with during the run
        self._shuffled_epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return self.total_steps

    def __iter__(self) -> Iterator[Record]:
        self.model.train()
        record = None
        # On a CPU, bfloat16's group norm is slow with channels last.
        with contiguous(self.model, self.bfloat16 and self.model.device.type == "cpu"):
            self._align_moments()
            while self.step < self.total_steps:
                if record is not None:
                    yield record
                learning_rate = self._set_learning_rate()
                loss = self._train_on_batch()
                self.step += 1
                record = Record(self.step, self.step / self.steps_per_epoch, loss, learning_rate)
        self.optimizer.zero_grad()
        self.model.load_state_dict(self.ema_model.state_dict())
        self.model.eval()
        self.finish()
        if record is not None:  # the last one, when the model is finished
            yield record

    def _align_moments(self) -> None:
        """Give the optimizer's moments the memory layout of their weights; in a resumed run it can differ.

        The fused AdamW ignores strides.
        """
        for weight, state in self.optimizer.state.items():
            for name in MOMENTS:
                state[name] = torch.empty_like(weight).copy_(state[name])

    @torch.inference_mode(False)
    @torch.enable_grad()  # also for a caller under no_grad
    def _train_on_batch(self) -> Tensor:
        """One step of the optimizer and of the averaged weights; returns the loss."""
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bfloat16):
            loss = self.batch_loss(self._batch(), self._step_generator())
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        self._update_ema()
        return loss.detach()

    def _set_learning_rate(self) -> float:
        """A straight rise, then half a cosine down: a function of the step alone, so that resuming needs no state."""
        warmup_steps = round(self.config.warmup * self.total_steps)
        rise = min(1.0, (self.step + 1) / (warmup_steps + 1))
        fall = 1.0
        if self.config.learning_rate_schedule == "cosine" and self.step > warmup_steps:
            fall = (1 + math.cos(math.pi * (self.step - warmup_steps) / (self.total_steps - warmup_steps))) / 2
        learning_rate = self.config.learning_rate * rise * fall
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        return learning_rate

    def _step_generator(self) -> torch.Generator:
        """The generator of a step's randomness, different for each step."""
        return seeded(self.config.seed * 1_000_003 + self.step)

    def _batch(self) -> Tensor:
        """The indices of this step's examples; each epoch has an order of its own."""
        epoch, batch = divmod(self.step, self.steps_per_epoch)
        if epoch != self._shuffled_epoch:
            generator = seeded(self.config.seed + 7_368_787 * (epoch + 1))  # far from the seeds of other runs
            self._order = torch.randperm(self.num_examples, generator=generator, device="cpu")
            self._shuffled_epoch = epoch
        return self._order[batch * self.config.batch_size :][: self.config.batch_size]

    @torch.no_grad()
    def _update_ema(self) -> None:
        """Average the weights: ``average = decay * average + (1 - decay) * weights``.

        The decay rises to the configuration's, so that the first, untrained weights are soon forgotten.
        """
        decay = 0.0
        if self.step > 0:
            decay = min(self.config.ema_decay, (self.step + 1) / (self.step + 10))
        for average, weight in zip(self.ema_model.state_dict().values(), self.model.state_dict().values()):
            if average.is_floating_point():
                average.lerp_(weight, 1 - decay)
            else:
                average.copy_(weight)  # a count

    def _identity(self) -> dict:
        """What a saved run and the run that resumes it must have in common."""
        return {
            "model": {"class": type(self.model).__name__, **self.model.config},
            "config": asdict(self.config),
            "num_examples": self.num_examples,
            "data": self.data,
        }

    def save(self, path: str | Path) -> None:
        """Write all that the run needs to continue, completely or not at all.

        Raises:
            ValueError: a weight is NaN or infinite: such a run is not saved.
        """
        for model in (self.model, self.ema_model):
            checkpoints.check_state(model, model.state_dict(), path)
        checkpoints.save(
            {
                "kind": "training",
                **self._identity(),
                "step": self.step,
                "weights": self.model.state_dict(),
                "ema": self.ema_model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
            path,
        )

    def resume(self, path: str | Path) -> None:
        """Continue from what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or of a run with another model, other settings or other data.
        """
        contents = checkpoints.load(path, "training")
        for name, value in self._identity().items():
            if contents.get(name) != value:
                wanted, got = _difference(value, contents.get(name))
                hint = "resume with the options it was started with, or start again in another folder"
                raise ValueError(f"expected the run in {path} to have {name} {wanted}, got {got}: {hint}")
        checkpoints.check_state(self.model, contents.get("weights"), path)
        checkpoints.check_state(self.ema_model, contents.get("ema"), path)
        try:
            step = check_count(contents["step"], "step", 0)
            _check_moments(self.optimizer.param_groups[0]["params"], contents["optimizer"]["state"])
            self.optimizer.load_state_dict(contents["optimizer"])
        except (AttributeError, LookupError, TypeError, RuntimeError, ValueError) as error:
            raise ValueError(f"expected a complete training run in {path}, got a damaged one: {error}") from error
        self.model.load_state_dict(contents["weights"])
        self.ema_model.load_state_dict(contents["ema"])
        self.step = step


def _check_moments(weights: list[Tensor], states: dict[int, dict]) -> None:
    """Refuse moments of the optimizer that cannot be: of another shape than their weight, not finite, or negative."""
    for index, state in states.items():
        for name in MOMENTS:
            if state[name].shape != weights[index].shape or not bool(state[name].isfinite().all()):
                raise ValueError(f"{name} of weight {index} is not finite, or of the wrong shape")
        if bool((state["exp_avg_sq"] < 0).any()):
            raise ValueError(f"exp_avg_sq of weight {index} is negative, but it is a mean of squares")


@contextmanager
def contiguous(model: nn.Module, wanted: bool) -> Iterator[None]:
    """If ``wanted``, keep all weights contiguous in memory for the block; then put each back as it was."""
    channels_last = [weight for weight in model.parameters() if weight.ndim == 4 and not weight.is_contiguous()]
    channels_last = channels_last if wanted else []
    for weight in channels_last:
        weight.data = weight.data.contiguous()
    try:
        yield
    finally:
        for weight in channels_last:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def _difference(wanted, got) -> tuple:
    """Two values; of two configurations, only the entries that differ."""
    if not (isinstance(wanted, dict) and isinstance(got, dict)):
        return wanted, got
    names = [name for name in {**wanted, **got} if wanted.get(name) != got.get(name)]
    return tuple({name: values[name] for name in names if name in values} for values in (wanted, got))
