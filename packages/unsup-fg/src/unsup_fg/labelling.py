"""Masks of many videos on disk: what students learn from, and what can be scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from unsup_fg.inference import SegmenterSettings, SoftMask, VideoPCASegmenter
from unsup_fg.method import VIDEOPCA
from unsup_fg.videopca import VideoPCASettings
from vos_shared.atomic import atomic_path
from vos_shared.datasets import VideoSequence
from vos_shared.errors import UserError
from vos_shared.inputs import inputs_fingerprint
from vos_shared.masks import write_mask
from vos_shared.method import ObjectMask, Supervision
from vos_shared.provenance import package_digest
from vos_shared.results import SOFT_MASKS, ResultsTree, SequenceWriter, check_places
from vos_shared.sequence_loop import segment_sequence


def write_soft_mask(path: Path, mask: SoftMask) -> None:
    """Write a soft mask, uint8 [h, w], as a grey PNG, atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(mask).save(temporary, format="PNG", compress_level=1)


@dataclass(frozen=True)
class _Output:
    tree: ResultsTree
    soft: bool

    def writer(self, sequence: VideoSequence, inputs: str) -> AbstractContextManager[SequenceWriter]:
        encode = write_soft_mask if self.soft else write_mask
        source = sequence.video.source_path
        return self.tree.writer(sequence.name, sequence.frame_names, inputs, source=source, encode=encode)


class Labeller:
    """Runs VideoPCA over sequences and writes their masks; finished sequences are left alone.

    Args:
        settings: of VideoPCA and of the object masks.
        device: where to compute.
        masks: folder for object masks, palette PNGs of the frames' size, or None.
        soft: folder for soft masks, grey PNGs of the working size, or None.

    Raises:
        UserError: neither folder.
    """

    def __init__(
        self, settings: SegmenterSettings, device: torch.device, *, masks: Path | None = None, soft: Path | None = None
    ) -> None:
        if masks is None and soft is None:
            raise UserError("nothing to write; add --output FOLDER for object masks, --soft FOLDER for soft masks")
        self._segmenter, self._device = VideoPCASegmenter(settings, device), device
        self._outputs: list[_Output] = []
        if masks is not None:
            self._outputs.append(_Output(ResultsTree(masks, settings=_made_with(settings, SegmenterSettings)), False))
        if soft is not None:
            self._outputs.append(
                _Output(ResultsTree(soft, settings=_made_with(settings, VideoPCASettings), kind=SOFT_MASKS), True)
            )

    def check_places(self, sequence_names: Iterable[str]) -> None:
        """Refuse, before any work, to replace what somebody else has written, or one kind of masks by the other.

        Raises:
            BadResults: naming the folder.
        """
        check_places([output.tree for output in self._outputs], sequence_names)

    def label(self, sequence: VideoSequence, on_frame: Callable[[], object] = lambda: None) -> dict[str, Any]:
        """Write the masks of a sequence, unless they are there.

        Args:
            sequence: one shot; its own masks are not looked at.
            on_frame: called after each frame that is computed, for progress.

        Returns:
            What it cost, now or when it was computed; see `vos_shared.sequence_loop.SequenceTiming.to_json`.

        Raises:
            UserError: a frame cannot be read, or a folder holds something else under the sequence's name.
        """
        inputs = inputs_fingerprint(sequence, Supervision.NONE)
        if not all(output.tree.is_complete(sequence.name, sequence.frame_names, inputs) for output in self._outputs):
            self._compute(sequence, inputs, on_frame)
        record = self._outputs[0].tree.record(sequence.name) or {}
        timing: dict[str, Any] = record.get("extra", {}).get("timing", {})
        return timing

    def _compute(self, sequence: VideoSequence, inputs: str, on_frame: Callable[[], object]) -> None:
        with ExitStack() as stack:
            writers = [(output.soft, stack.enter_context(output.writer(sequence, inputs))) for output in self._outputs]
            timing = segment_sequence(
                self._segmenter,
                sequence,
                _Sink(self._segmenter, writers),
                supervision=Supervision.NONE,
                device=self._device,
                on_frame=on_frame,
            )
            for _, writer in writers:
                writer.extra({"timing": timing.to_json()})


class _Sink:
    """Gives each writer its kind of mask."""

    def __init__(self, segmenter: VideoPCASegmenter, writers: list[tuple[bool, SequenceWriter]]) -> None:
        self._segmenter, self._writers = segmenter, writers
        self._count = 0

    def write(self, frame_name: str, mask: ObjectMask) -> None:
        """Write one frame."""
        for soft, writer in self._writers:
            writer.write(frame_name, self._segmenter.soft_masks[self._count] if soft else mask)
        self._count += 1


def _made_with(settings: SegmenterSettings, kind: type[VideoPCASettings]) -> dict[str, Any]:
    """What masks depend on beside the video; soft masks not on the threshold."""
    values = {field.name: getattr(settings, field.name) for field in fields(kind)}
    return {
        "method": "videopca",
        "version": version("unsup-fg"),
        "package_digest": package_digest(VIDEOPCA),
        **values,
    }
