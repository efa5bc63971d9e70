"""Settings of training: the published values, and values that are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dense_ulearn.networks import DenseNetwork
from dense_ulearn.objective import check_settings, make_optimiser
from dense_ulearn.presets import (
    CUSTOM,
    KINETICS,
    OXUVA,
    TRACK,
    YTVOS,
    Augmentation,
    ObjectiveSettings,
    Optimisation,
    Sampling,
    TrainingSettings,
)
from vos_shared.errors import UserError

TINY = TrainingSettings(
    batch=2,
    epochs=1,
    clips_per_video=2,
    seed=5,
    augmentation=Augmentation(crop=32, shorter_side=(32, 48)),
    objective=ObjectiveSettings(grid=4, reference_grid=2),
    optimisation=Optimisation("adam", 1e-3, 5e-4, "step", step_epochs=1, gamma=0.5),
)
"""Two epochs of two steps."""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (replace(TINY, batch=0), "--batch is 0; it must be at least 1"),
        (replace(TINY, epochs=-1), "--epochs is -1"),
        (replace(TINY, seed=-1), "--seed is -1"),
        (replace(TINY, picture_epochs=0), "--picture-epochs is 0"),
        (replace(TINY, validate_epochs=0), "--validate-epochs is 0"),
        (replace(TINY, sampling=Sampling(frames=1)), "--frames is 1"),
        (replace(TINY, sampling=Sampling(gap=0)), "--gap is 0"),
        (replace(TINY, objective=ObjectiveSettings(grid=0)), "--grid is 0"),
        (replace(TINY, objective=ObjectiveSettings(temperature=0)), "--temperature is 0; it must be more than 0"),
        (replace(TINY, optimisation=Optimisation(lr=-1)), "--lr is -1"),
        (replace(TINY, optimisation=Optimisation(lr=float("nan"))), "--lr is nan"),
        (replace(TINY, optimisation=Optimisation(step_epochs=0)), "--step-epochs is 0"),
        (
            replace(TINY, optimisation=Optimisation(momentum=1)),
            "--momentum is 1; it must be at least 0, less than 1",
        ),
        (replace(TINY, augmentation=Augmentation(512)), "lower --crop or raise --shorter-side"),
        (replace(TINY, augmentation=Augmentation(40, (40, 48))), "multiples of 32 pixels"),
        (replace(TINY, augmentation=Augmentation(65, (80, 88))), "feature map of 9x9 cells"),
    ],
)
def test_settings_that_cannot_be_carried_out_are_named(settings: TrainingSettings, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_settings(settings)


@pytest.mark.parametrize(
    ("settings", "epoch", "factor"), [(YTVOS, 99, 1.0), (YTVOS, 250, 0.25), (TRACK, 45, 0.81), (CUSTOM, 80, 1.0)]
)
def test_rates_of_the_published_schedules(settings: TrainingSettings, epoch: int, factor: float) -> None:
    assert settings.optimisation.rate_factor(epoch, settings.epochs) == pytest.approx(factor)


def test_the_linear_schedule_ends_at_nothing() -> None:
    linear = Optimisation(schedule="linear", power=2.0)
    assert [linear.rate_factor(epoch, 10) for epoch in (0, 5, 10)] == [1.0, 0.25, 0.0]


@pytest.mark.parametrize(
    ("preset", "epochs", "gap", "optimiser", "rate", "step_epochs", "gamma", "shorter_side", "validated", "pictured"),
    [
        (YTVOS, 500, 2, "adam", 1e-4, 100, 0.5, (256, 320), 10, 20),
        (OXUVA, 500, 10, "adam", 1e-4, 100, 0.5, (256, 320), 10, 20),
        (TRACK, 250, 10, "sgd", 1e-3, 20, 0.9, (256, 256), 2, 10),
        (KINETICS, 80, 10, "sgd", 1e-3, 20, 0.5, (256, 256), 2, 8),
    ],
    ids=["ytvos", "oxuva", "track", "kinetics"],
)
def test_published_configurations(
    preset: TrainingSettings,
    epochs: int,
    gap: int,
    optimiser: str,
    rate: float,
    step_epochs: int,
    gamma: float,
    shorter_side: tuple[int, int],
    validated: int,
    pictured: int,
) -> None:
    """The table of the specification, section 3."""
    found = preset.optimisation
    assert (preset.batch, preset.epochs, preset.clips_per_video, preset.block_bn) == (16, epochs, 1, False)
    assert preset.sampling == Sampling(5, gap, ordered=preset is KINETICS)
    assert preset.augmentation == Augmentation(256, shorter_side, random_crop=optimiser == "adam", zoom=(0.5, 1.0))
    assert preset.objective == ObjectiveSettings(8, 4, 0.05, 0.1)
    assert (found.optimiser, found.lr, found.weight_decay, found.schedule) == (optimiser, rate, 5e-4, "step")
    assert (found.step_epochs, found.gamma) == (step_epochs, gamma)
    assert (preset.validate_epochs, preset.picture_epochs) == (validated, pictured)


def test_optimisers_have_the_published_values() -> None:
    adam = make_optimiser(DenseNetwork(), YTVOS.optimisation)
    assert [(group["betas"], group["eps"]) for group in adam.param_groups] == [((0.5, 0.999), 1e-8)] * 2
    sgd = make_optimiser(DenseNetwork(), TRACK.optimisation)
    assert [(group["momentum"], group["nesterov"]) for group in sgd.param_groups] == [(0.9, False)] * 2
    for optimiser, rate in ((adam, 1e-4), (sgd, 1e-3)):
        found = [(group["lr"], group["weight_decay"]) for group in optimiser.param_groups]
        assert found == [(rate, 5e-4), (2 * rate, 0)]


def test_all_configurations_can_be_carried_out() -> None:
    for preset in (YTVOS, OXUVA, TRACK, KINETICS, CUSTOM):
        check_settings(preset)
