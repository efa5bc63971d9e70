from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spn_instances import learners
from spn_instances.method import SPN_INSTANCES
from spn_instances.networks import ResNetF
from spn_instances.online import Examples, fine_tune
from spn_instances.settings import OnlineSettings
from vos_shared.contract_tests import MethodContract
from vos_shared.method import Method


class TestContract(MethodContract):
    @pytest.fixture(autouse=True)
    def few_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def short(model: ResNetF, examples: Examples, settings: OnlineSettings) -> ResNetF:
            return fine_tune(model, examples, replace(settings, steps=2))

        monkeypatch.setattr(learners, "fine_tune", short)

    @pytest.fixture
    def method(self) -> Method:
        return SPN_INSTANCES

    @pytest.fixture
    def weights(self, foreground_weights: Path) -> Path:
        return foreground_weights

    @pytest.fixture
    def options(self, refinement_weights: Path) -> Mapping[str, Any]:
        return {"spn_weights": refinement_weights}
