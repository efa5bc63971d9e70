"""The pytest plugin: commands in the same process, and the weights of parity folders."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vos_shared.testing import RunCommand, bilinear_kernel, exit_code, parity_folder, recipe_noise, recipe_tensor


def speak() -> None:
    print(*sys.argv)
    print("a message", file=sys.stderr)
    raise SystemExit(2)


def test_a_command_that_runs_in_process(run_command: RunCommand) -> None:
    print("of the test, not of the command")
    outcome = run_command(speak, "speak", "--output", Path("out"), 3)
    assert (outcome.code, outcome.stdout, outcome.stderr) == (2, "speak --output out 3\n", "a message\n")


def test_exit_codes_as_a_shell_sees_them() -> None:
    assert exit_code(lambda: None, "nothing") == 0
    assert exit_code(lambda: sys.exit(), "nothing") == 0
    assert exit_code(lambda: sys.exit("a message"), "text") == 1
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: 1 // 0, "fails")


def test_noise_follows_from_the_name() -> None:
    noise = recipe_noise("conv1.weight", (2, 3))
    np.testing.assert_array_equal(noise, recipe_noise("conv1.weight", (2, 3)))
    assert not np.isclose(noise, recipe_noise("conv2.weight", (2, 3))).any()


def test_bilinear_kernel() -> None:
    np.testing.assert_allclose(bilinear_kernel(4, 2)[:, 1, 0, 0] / 0.75, [0.25, 0.75, 0.75, 0.25])
    assert not bilinear_kernel(4, 2)[:, :, 0, 1].any()


def test_recipe_of_pytorch_states() -> None:
    assert recipe_tensor("bn.num_batches_tracked", ()).dtype == torch.int64
    assert (recipe_tensor("bn.running_var", (50,)) >= 0.9).all()
    kernel = recipe_tensor("conv.weight", (64, 32, 3, 3))
    assert kernel.std().item() == pytest.approx((2 / 288) ** 0.5, rel=0.05)
    assert recipe_tensor("bn.weight", (1000,)).mean().item() == pytest.approx(1, abs=0.02)


def test_no_parity_folder_skips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VOS_PARITY", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match="osmn"):
        parity_folder("osmn")
    (tmp_path / "osmn").mkdir()
    assert parity_folder("osmn") == tmp_path / "osmn"
