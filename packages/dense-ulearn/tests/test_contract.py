from __future__ import annotations

import pytest

from dense_ulearn.method import DENSE_ULEARN
from vos_shared.contract_tests import MethodContract
from vos_shared.method import Method


class TestContract(MethodContract):
    @pytest.fixture
    def method(self) -> Method:
        return DENSE_ULEARN

    @pytest.fixture
    def weights(self) -> str:
        return "untrained"
