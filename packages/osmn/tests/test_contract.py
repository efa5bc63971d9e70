from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from osmn import online
from osmn.method import OSMN_METHOD
from osmn.networks import OSMN
from osmn.online import FirstFrame
from osmn.presets import SampleSettings
from osmn.settings import OnlineSettings
from vos_shared.contract_tests import MethodContract
from vos_shared.method import Method


class TestContract(MethodContract):
    @pytest.fixture(autouse=True)
    def few_iterations(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = online.fine_tune

        def short(model: OSMN, source: FirstFrame, samples: SampleSettings, settings: OnlineSettings) -> OSMN:
            return real(model, source, samples, replace(settings, iterations=2))

        monkeypatch.setattr(online, "fine_tune", short)

    @pytest.fixture
    def method(self) -> Method:
        return OSMN_METHOD

    @pytest.fixture
    def weights(self, tiny_weights: Path) -> Path:
        return tiny_weights
