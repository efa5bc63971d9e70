"""The Triton kernels, run by Triton's interpreter on the CPU: they equal the loop over columns."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from spn_instances import spn
from spn_instances.spn import SpatialPropagation, normalise_gates, propagate


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    sys.modules.pop("spn_instances.spn_triton", None)
    yield importlib.import_module("spn_instances.spn_triton")
    sys.modules.pop("spn_instances.spn_triton")  # Tests on a GPU must not use the interpreter.


@pytest.mark.parametrize(
    ("ways", "shape"), [(1, (1, 1, 3, 4)), (3, (1, 2, 4, 3)), (3, (1, 1, 1, 2)), (3, (1, 1, 2, 1))]
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # The interpreter computes on masked values, too.
def test_scans_and_gradients_equal_the_loop(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch, ways: int, shape: tuple[int, int, int, int]
) -> None:
    number, channels, height, width = shape
    x = torch.randn(shape, requires_grad=True)
    gates = normalise_gates(torch.randn(number, 4, ways, channels, height, width)).requires_grad_()
    grad = torch.randn(4, *shape)
    expected = propagate(x, gates)
    expected_gradients = torch.autograd.grad(expected, (x, gates), grad)
    monkeypatch.setattr(spn, "_kernels", lambda _: kernels)
    found = propagate(x, gates)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.autograd.grad(found, (x, gates), grad), expected_gradients, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["_scan", "_scan_gradients"])
def test_the_kernels_compile_for_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    triton = pytest.importorskip("triton", minversion="3.3")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compiler, backends = (importlib.import_module(f"triton.{part}.compiler") for part in ("compiler", "backends"))
    kernel = getattr(importlib.import_module("spn_instances.spn_triton"), name)
    kinds = dict.fromkeys(("x", "gates", "h", "grad", "errors", "to_x", "to_gates"), "*fp32")
    kinds |= {"WAYS": "constexpr", "BLOCK": "constexpr"}
    signature = {argument: kinds.get(argument, "i32") for argument in kernel.arg_names}
    source = compiler.ASTSource(kernel, signature, {"WAYS": 3, "BLOCK": 16})
    compiled = triton.compile(source, target=backends.GPUTarget("cuda", 80, 32))
    assert f".entry {name}" in compiled.asm["ptx"]


def test_one_set_of_gates_serves_all_maps(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    x, gates = torch.randn(2, 1, 2, 3, requires_grad=True), torch.randn(1, 12, 2, 3, requires_grad=True)
    module = SpatialPropagation("always")
    expected = module(x, gates)
    expected_gradients = torch.autograd.grad(expected.square().sum(), (x, gates))
    monkeypatch.setattr(spn, "_kernels", lambda _: kernels)
    found = module(x, gates)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), (x, gates)), expected_gradients, atol=1e-4, rtol=1e-4
    )
