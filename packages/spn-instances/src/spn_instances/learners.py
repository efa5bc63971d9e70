"""Where a video's networks come from: the parent alone, folders of trained ones, or fine-tuning on first frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np

from spn_instances.checkpoints import load_weights, save_weights
from spn_instances.data import Example
from spn_instances.networks import ResNetF
from spn_instances.online import Examples, fine_tune, fine_tune_late, with_own_late_layers
from spn_instances.settings import OnlineSettings
from vos_shared.errors import UserError
from vos_shared.kept import ORIGIN, fingerprint, is_kept, kept_path
from vos_shared.method import Frame, ObjectMask
from vos_shared.training.run import LAST

FOREGROUND = "foreground"
SECONDS = "seconds"
"""The entry of a kept network's metadata that says how long its fine-tuning took."""


class Learner:
    """The parent net for the foreground; networks of objects only where a folder has them.

    Args:
        parent: on its device.
        trained: folder with <video>/foreground and <video>/object-<id>, as the train commands leave them, or None.

    Attributes:
        foreground: the network of the foreground of the current video.
    """

    def __init__(self, parent: ResNetF, trained: Path | None = None) -> None:
        self.parent = self.foreground = parent
        self.device = next(parent.parameters()).device
        self.trained = trained
        self.video: str | None = None
        self.objects: dict[int, ResNetF] = {}

    def reset(self, video: str | None) -> None:
        """Start a new video; `video` is its name, or None if the name is not known."""
        self.video, self.objects, self.foreground = video, {}, self.parent
        if self.trained is not None and video is not None:
            self.foreground = self._trained(FOREGROUND) or self.parent

    def networks(self, ids: Sequence[int]) -> list[ResNetF]:
        """The networks of these objects; an empty list if objects have no networks of their own."""
        return [self.objects[object_id] for object_id in ids] if self.objects else []

    def learn(self, frame: Frame, ids: ObjectMask, new: Sequence[int]) -> None:
        """Learn new objects.

        Args:
            frame: the one in which they are new.
            ids: object ids of that frame, uint8 [H, W].
            new: ids of the new ones.

        Raises:
            UserError: an object has no trained network, or the video's name is not known.
        """
        if self.trained is None:
            return
        if self.video is None:
            raise UserError("spn-instances: trained networks are found by the video's name; call prepare first")
        found = {object_id: self._trained(f"object-{object_id}") for object_id in new}
        lacking = [object_id for object_id, network in found.items() if network is None]
        if lacking:
            folder = self.trained / self.video / f"object-{lacking[0]}"
            raise UserError(f"spn-instances: no network {folder / LAST}; make it with spn-instances train object")
        self.objects |= {object_id: network for object_id, network in found.items() if network is not None}

    def _trained(self, name: str) -> ResNetF | None:
        if self.trained is None or self.video is None:
            return None
        path = self.trained / self.video / name / LAST
        return load_weights(path, ResNetF).model.requires_grad_(False).to(self.device) if path.is_file() else None


class OnlineLearner(Learner):
    """Fine-tunes the parent on the frames where objects are new: once for all of them, and once for each."""

    def __init__(self, parent: ResNetF, settings: OnlineSettings) -> None:
        super().__init__(parent)
        self.settings = settings = settings.for_trunk(parent.architecture.trunk)
        self._prompted: list[Example] = []
        self._start = ""
        if settings.models is not None:
            if settings.models.is_file():
                raise UserError(f"spn-instances: --models {settings.models} is a file; give a folder")
            # Kept networks depend on the start weights and on the settings, but not on where they are kept.
            self._start = fingerprint(parent, replace(settings, models=None, tune_foreground=True, tune_objects=True))

    def reset(self, video: str | None) -> None:
        """Start a new video; `video` is its name, or None if the name is not known."""
        super().reset(video)
        self._prompted = []

    def learn(self, frame: Frame, ids: ObjectMask, new: Sequence[int]) -> None:
        """Fine-tune networks for the new objects, and the foreground net on all prompted frames.

        Raises:
            UserError: a network diverged, or is to be kept and the video has no name.
        """
        if self.settings.models is not None and self.video is None:
            raise UserError("spn-instances: fine-tuned networks are kept under the video's name; call prepare first")
        self._prompted.append((frame, (ids > 0).astype(np.uint8)))
        wanted: dict[str, list[Example]] = {FOREGROUND: self._prompted} if self.settings.tune_foreground else {}
        learned = new if self.settings.tune_objects else ()
        for object_id in learned:
            wanted[f"object-{object_id}"] = [(frame, (ids == object_id).astype(np.uint8))]
        tuned = self._tuned_or_kept(wanted)
        self.foreground = tuned.get(FOREGROUND, self.parent)
        self.objects |= {object_id: tuned[f"object-{object_id}"] for object_id in learned}

    def _tuned_or_kept(self, wanted: dict[str, list[Example]]) -> dict[str, ResNetF]:
        paths = {name: self._kept_path(name, pairs) for name, pairs in wanted.items()}
        networks = {}
        for name, (path, origin) in paths.items():
            if path is not None and is_kept(path, origin):
                networks[name] = self._sharing(load_weights(path, ResNetF).model).requires_grad_(False).to(self.device)
        missing = {name: pairs for name, pairs in wanted.items() if name not in networks}
        began = perf_counter()
        for name, network in self._tune(missing):
            networks[name] = network
            path, origin = paths[name]
            if path is not None:
                notes = {"description": f"fine-tuned on first frames of {self.video}", ORIGIN: origin}
                save_weights(path, network, {**notes, SECONDS: f"{perf_counter() - began:.1f}"})
            began = perf_counter()
        return networks

    def _tune(self, wanted: dict[str, list[Example]]) -> Iterator[tuple[str, ResNetF]]:
        if self.settings.fast and wanted:
            # All labels of one frame together; the foreground's newest frame is that of the new objects.
            frame = next(iter(wanted.values()))[-1][0]
            labels = {name: pairs[-1][1] for name, pairs in wanted.items()}
            yield from fine_tune_late(self.parent, frame, labels, self.settings)
            return
        for name, pairs in wanted.items():
            yield name, fine_tune(self.parent, Examples(pairs), self.settings)

    def _sharing(self, network: ResNetF) -> ResNetF:
        """A kept network; in the fast mode it shares the parent's early layers, of which the file has a copy."""
        if not self.settings.fast:
            return network
        sharing = with_own_late_layers(self.parent)
        sharing.load_state_dict(network.state_dict())
        return sharing

    def _kept_path(self, name: str, pairs: Sequence[Example]) -> tuple[Path | None, str]:
        if self.settings.models is None or self.video is None:
            return None, ""
        content = b"".join(part.tobytes() for pair in pairs for part in pair)
        origin = fingerprint(self._start, name, content)
        return kept_path(self.settings.models, self.video, name, origin), origin
