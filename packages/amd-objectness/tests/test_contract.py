from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from amd_objectness.method import AMD_OBJECTNESS
from vos_shared.contract_tests import MethodContract
from vos_shared.method import Method


class TestContract(MethodContract):
    @pytest.fixture
    def method(self) -> Method:
        variants = {name: dict(options) for name, options in AMD_OBJECTNESS.variants.items()}
        variants["amd-objectness+adapt"]["iterations"] = 1
        return replace(AMD_OBJECTNESS, variants=variants)

    @pytest.fixture
    def weights(self, small_weights: Path) -> Path:
        return small_weights
