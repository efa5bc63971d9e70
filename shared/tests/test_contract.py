import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from vos_shared.contract_tests import MethodContract
from vos_shared.method import Method


class TestContract(MethodContract):
    """The smallest method passes the contract tests."""

    @pytest.fixture
    def method(self, copying: Method) -> Method:
        return copying


BROKEN = """
    import itertools, types, sys
    import numpy as np, pytest
    from copying import Copying
    from vos_shared.contract_tests import MethodContract
    from vos_shared.method import Method, Segmentation, Supervision

    def broken(change):
        module = types.ModuleType("broken_" + change.__name__)
        class Broken(Copying):
            def step(self, frame, prompt=None, *, soft_masks=False):
                return change(self, super().step(frame, prompt, soft_masks=soft_masks), prompt)
        module.load = lambda weights, device, precision, **options: Broken()
        sys.modules[module.__name__] = module
        method = Method(module.__name__, "", "", Supervision.FIRST_FRAME, module.__name__ + ":load")
        return type("Test_" + change.__name__, (MethodContract,), {
            "method": pytest.fixture(lambda self: method)
        })

    def wide_type(self, segmentation, prompt):
        return Segmentation(segmentation.mask.astype(np.int64), segmentation.soft_masks)

    def invented_id(self, segmentation, prompt):
        return Segmentation(np.maximum(segmentation.mask, 200).astype(np.uint8), segmentation.soft_masks)

    def half_size(self, segmentation, prompt):
        return Segmentation(segmentation.mask[::2, ::2], segmentation.soft_masks)

    counter = itertools.count()
    def never_twice_the_same(self, segmentation, prompt):
        return Segmentation(np.roll(segmentation.mask, next(counter), 1), segmentation.soft_masks)

    buffer = {}
    def one_buffer(self, segmentation, prompt):
        mask = buffer.setdefault(segmentation.mask.shape, np.zeros_like(segmentation.mask))
        mask[:] = np.roll(segmentation.mask, 0 if prompt is not None else 3, 1)
        return Segmentation(mask, segmentation.soft_masks)

    kept = []
    def keeps_all(self, segmentation, prompt):
        kept.append(np.repeat(segmentation.mask, 3))
        return segmentation

    def keeps_tensors(self, segmentation, prompt):
        import torch
        kept.append(torch.from_numpy(segmentation.mask).repeat(3, 1))
        return segmentation

    def loud_scores(self, segmentation, prompt):
        return Segmentation(segmentation.mask, None if segmentation.soft_masks is None else 2 * segmentation.soft_masks)

    def always_scores(self, segmentation, prompt):
        return Segmentation(segmentation.mask, np.zeros((2, *segmentation.mask.shape), np.float32))

    for change in (wide_type, invented_id, half_size, never_twice_the_same, one_buffer, keeps_all, keeps_tensors,
                   loud_scores, always_scores):
        globals()["Test_" + change.__name__] = broken(change)
"""


BREACHES = {
    "wide_type": "test_masks_are_ids_of_the_frames_size",
    "invented_id": "test_ids_are_kept_as_given",
    "half_size": "test_masks_are_ids_of_the_frames_size",
    "never_twice_the_same": "test_the_same_again",
    "one_buffer": "test_masks_stay_as_they_were",
    "keeps_all": "test_memory_is_bounded",
    "keeps_tensors": "test_memory_is_bounded",
    "loud_scores": "test_scores_are_soft_masks",
    "always_scores": "test_masks_are_ids_of_the_frames_size",
}


def test_every_breach_is_found(tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text(textwrap.dedent(BROKEN))
    tests = [f"test_broken.py::Test_{breach}::{test}" for breach, test in BREACHES.items()]
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", "--tb=line", *tests]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    for test in tests:
        assert f"FAILED {test}" in run.stdout, run.stdout
    assert run.stdout.count("AssertionError") >= len(BREACHES), run.stdout
