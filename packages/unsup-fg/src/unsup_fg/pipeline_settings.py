"""Settings of the whole method: both iterations, from videos to students (specification, section 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from unsup_fg.presets import PUBLISHED, TrainingSettings
from unsup_fg.selection import require_share
from unsup_fg.settings import STUDENTS, Architecture, CandidateName, NetworkName, StudentName
from vos_shared.errors import UserError


@dataclass(frozen=True)
class PipelineSettings:
    """Settings of a run; networks that a mapping does not name have the published value.

    Attributes:
        students: networks that learn from VideoPCA in the first iteration.
        second: networks that learn from the students in the second iteration; dilate-unet is the best in the paper.
        top: share of the soft masks that is selected in each iteration; the paper's is 10 to 20 %.
        second_top: the same of the second iteration, where it differs.
        consensus: the second generation learns from the mean of all soft masks of a frame, those of the students and
            VideoPCA's, in place of the students' own; the authors select among these.
        width: factor of the published numbers of channels, by network.
        steps: of training, by network.
        batch: records per training step, by network.
        learning_rate: by network.
        decay: decrease learning rates linearly to zero; as published they are constant.
        norm_momentum: share of a batch in the moving averages of batch norms; short runs need more than published.
        input_size: side of the input of U-Nets, in pixels, a multiple of 32; None as published.
        fixed: without two faults of the released code, see `Architecture`.
        every: after VideoPCA, use only every so many frames of a video, because neighbours are nearly the same.
        shorter_side: largest shorter side of decoded frames, in pixels; larger frames are scaled down.
        size: working size of VideoPCA, in pixels.
        shards: number of files of each set of records.
        seed: seed of training.
    """

    students: tuple[StudentName, ...] = STUDENTS
    second: tuple[StudentName, ...] = ("dilate-unet",)
    top: float = 0.15
    second_top: float | None = None
    consensus: bool = False
    width: Mapping[NetworkName, float] = field(default_factory=dict)
    steps: Mapping[NetworkName, int] = field(default_factory=dict)
    batch: Mapping[NetworkName, int] = field(default_factory=dict)
    learning_rate: Mapping[NetworkName, float] = field(default_factory=dict)
    decay: bool = False
    norm_momentum: float = 0.01
    input_size: int | None = None
    fixed: bool = False
    every: int = 1
    shorter_side: int = 300
    size: int = 300
    shards: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        require_share(self.top)
        require_share(self.top_of_second, "--second-top")
        for name, students in (("--students", self.students), ("--second", self.second)):
            if not students or len(set(students)) != len(students):
                raise UserError(f"unsup-fg: {name} must name at least one student, each once")
        if not 1 <= self.shards <= 99999:
            raise UserError(f"unsup-fg: --shards is {self.shards}; give 1 to 99999")
        if self.every < 1:
            raise UserError(f"unsup-fg: --every is {self.every}; give 1 or more")
        if self.shorter_side < 16:
            raise UserError(f"unsup-fg: --shorter-side is {self.shorter_side}; give 16 pixels or more")
        for network in PUBLISHED:  # Both check their values.
            self.architecture(network)
            self.training(network)

    @property
    def top_of_second(self) -> float:
        """Share of the soft masks that is selected in the second iteration."""
        return self.top if self.second_top is None else self.second_top

    @property
    def candidates(self) -> tuple[CandidateName, ...]:
        """Whose masks EvalSeg-Net scores, and the second generation learns from."""
        return ("consensus",) if self.consensus else self.students

    @property
    def masks(self) -> tuple[CandidateName, ...]:
        """All whose masks the first iteration leaves, beside VideoPCA."""
        return (*self.students, "consensus") if self.consensus else self.students

    def architecture(self, network: NetworkName) -> Architecture:
        """Return the architecture of a network."""
        side = self.input_size if network.endswith("unet") else None
        return Architecture(network, self.width.get(network, 1.0), self.fixed, side)

    def training(self, network: NetworkName) -> TrainingSettings:
        """Return the training settings of a network."""
        published = PUBLISHED[network]
        return replace(
            published,
            steps=self.steps.get(network, published.steps),
            batch=self.batch.get(network, published.batch),
            learning_rate=self.learning_rate.get(network, published.learning_rate),
            decay=self.decay,
            norm_momentum=self.norm_momentum,
            seed=self.seed,
        )
