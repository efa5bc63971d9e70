from __future__ import annotations

from pathlib import Path

import pytest

from osmn.method import OSMN_METHOD
from vos_shared.contract_tests import MethodContract
from vos_shared.method import Method


class TestContract(MethodContract):
    @pytest.fixture
    def method(self) -> Method:
        return OSMN_METHOD

    @pytest.fixture
    def weights(self, tiny_weights: Path) -> Path:
        return tiny_weights
