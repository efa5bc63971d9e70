"""Where a video's networks come from: the parent alone, folders of trained ones, or fine-tuning on first frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np

from spn_instances.checkpoints import load_weights, save_weights
from spn_instances.data import Example
from spn_instances.networks import ResNetF
from spn_instances.online import Examples, LateTuning, fine_tune, with_own_late_layers
from spn_instances.settings import OnlineSettings
from vos_shared.errors import UserError
from vos_shared.kept import ORIGIN, fingerprint, is_kept, kept_path
from vos_shared.method import Frame, ObjectMask
from vos_shared.training.run import LAST

FOREGROUND = "foreground"
SECONDS = "seconds"
"""The entry of a kept network's metadata that says how long its fine-tuning took."""


class Learner:
    """Holds the networks of the current video: the parent net for the foreground, and trained networks of a folder.

    Args:
        parent: the parent net, on its device.
        trained: folder with <video>/foreground and <video>/object-<id>, as the train commands leave them, or None.

    Attributes:
        foreground: network of the foreground of the current video.
        device: of the parent net.
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
        """The networks of these objects, in this order; an empty list if objects have no networks of their own."""
        return [self.objects[object_id] for object_id in ids] if self.objects else []

    def learn(self, frame: Frame, ids: ObjectMask, new: Sequence[int]) -> None:
        """Find the networks of new objects.

        Args:
            frame: the frame in which they are new, uint8 RGB [H, W, 3].
            ids: object ids of that frame, uint8 [H, W].
            new: ids of the new objects.

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
    """Fine-tunes the parent on the frames where objects are new: once for all of them, and once for each.

    In the fast mode the networks of objects start from that of the foreground.
    """

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
            UserError: fine-tuning diverged; or networks are to be kept and the name of the video is not known.
        """
        if self.settings.models is not None and self.video is None:
            raise UserError("spn-instances: fine-tuned networks are kept under the video's name; call prepare first")
        late = LateTuning(self.parent, frame, self.settings) if self.settings.fast else None
        self._prompted = [*([] if late else self._prompted), (frame, (ids > 0).astype(np.uint8))]
        self.foreground = self.parent
        if self.settings.tune_foreground:
            origin = self._origin(FOREGROUND, self._prompted)
            self.foreground = self._kept_or_made(FOREGROUND, origin, lambda: self._tuned(self._prompted, late))
        for object_id in new if self.settings.tune_objects else ():
            example = frame, (ids == object_id).astype(np.uint8)
            self.objects[object_id] = self._of_object(f"object-{object_id}", example, late)

    def _of_object(self, name: str, example: Example, late: LateTuning | None) -> ResNetF:
        """The network of an object; a video's only object shares that of the foreground."""
        origin, has_foreground = self._origin(name, [example]), self.settings.tune_foreground
        if has_foreground and _content([example]) == _content(self._prompted):
            # Kept under its own name as well, for runs that leave the foreground as it is.
            self._kept_or_made(name, origin, lambda: self.foreground)
            return self.foreground
        if has_foreground and late is not None:
            start = self._origin(FOREGROUND, self._prompted), self.settings.object_solver
            origin = self._origin(name, [example], *start)
            return self._kept_or_made(name, origin, lambda: late.from_foreground(self.foreground, example[1]))
        return self._kept_or_made(name, origin, lambda: self._tuned([example], late))

    def _tuned(self, pairs: Sequence[Example], late: LateTuning | None) -> ResNetF:
        """The parent, fine-tuned; the fast mode takes the first frame alone."""
        return fine_tune(self.parent, Examples(pairs), self.settings) if late is None else late.from_parent(pairs[0][1])

    def _kept_or_made(self, name: str, origin: str, make: Callable[[], ResNetF]) -> ResNetF:
        """Read the kept network, or make and keep it."""
        if self.settings.models is None or self.video is None:
            return make()
        path = kept_path(self.settings.models, self.video, name, origin)
        if is_kept(path, origin):
            return self._sharing(load_weights(path, ResNetF).model).requires_grad_(False).to(self.device)
        began = perf_counter()
        network = make()
        notes = {"description": f"fine-tuned on first frames of {self.video}", ORIGIN: origin}
        save_weights(path, network, {**notes, SECONDS: f"{perf_counter() - began:.1f}"})
        return network

    def _sharing(self, network: ResNetF) -> ResNetF:
        """A kept network; in the fast mode it shares the parent's early layers, of which the file has a copy."""
        if not self.settings.fast:
            return network
        sharing = with_own_late_layers(self.parent)
        sharing.load_state_dict(network.state_dict())
        return sharing

    def _origin(self, name: str, pairs: Sequence[Example], *start: object) -> str:
        """Hash of all that a kept network depends on; `start` describes its start if that is not the parent."""
        return fingerprint(self._start, name, _content(pairs), *start)


def _content(pairs: Sequence[Example]) -> bytes:
    return b"".join(part.tobytes() for pair in pairs for part in pair)
