"""The teacher of the first iteration: VideoPCA labels videos, and its best masks are selected (sections 2 and 3)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unsup_fg.data_sets import DataSet, mask_names
from unsup_fg.inference import SegmenterSettings, VideoPCASegmenter
from unsup_fg.labelling import soft_label_output
from unsup_fg.method import VIDEOPCA
from unsup_fg.run_folder import RunFolder, write_scores
from unsup_fg.run_processes import everywhere
from unsup_fg.selection import SelectedSet, best_first, best_share, mask_scores, write_selection
from vos_shared.atomic import write_json
from vos_shared.errors import BadDataset
from vos_shared.files import read_json
from vos_shared.processing import process
from vos_shared.runtime.distributed import shard
from vos_shared.training.agreement import together

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def label_videos(sets: Sequence[DataSet], folder: RunFolder, fabric: Fabric) -> dict[str, str]:
    """Write the soft masks of all videos; processes share the videos, and finished ones are skipped.

    Args:
        sets: the videos, none of which is too short.
        folder: of the run.
        fabric: launched.

    Returns:
        The videos with frames that cannot be read, by name, and why. They have no masks.
    """
    notes = folder.output / "unreadable"
    together(lambda: shutil.rmtree(notes, ignore_errors=True), fabric)

    def label() -> None:
        segmenter = VideoPCASegmenter(SegmenterSettings(size=folder.size), fabric.device)
        for data in sets:
            process(
                shard(data.sequences),
                segmenter,
                [soft_label_output(folder.teacher_masks(data), segmenter)],
                supervision=VIDEOPCA.supervision,
                device=fabric.device,
                failed=lambda sequence, why: write_json(notes / f"{sequence.name}.json", str(why)),
            )

    everywhere(label, fabric)
    return {path.stem: read_json(path) for path in sorted(notes.glob("*.json"))}


def select_masks(sets: Sequence[DataSet], folder: RunFolder, top: float) -> None:
    """Select the best share of the soft masks of each data set, and write scores and selection.

    Args:
        sets: the labelled videos.
        folder: of the run.
        top: share of the masks with an object.

    Raises:
        BadDataset: no mask has an object.
    """
    kept = []
    for data in sets:
        soft = folder.teacher_masks(data).root
        scored = mask_scores(soft, mask_names(data))
        ranked = best_first(item for item in scored if item.score)
        write_scores(folder.scores_file(data), ranked)
        kept.append(SelectedSet(str(soft), len(scored), len(scored) - len(ranked), tuple(best_share(ranked, top))))
    if not any(item.kept for item in kept):
        raise BadDataset("unsup-fg: VideoPCA finds no object in any video; give other videos")
    write_selection(folder.selection_file(1), kept)
