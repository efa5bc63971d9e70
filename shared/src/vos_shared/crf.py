"""Fully connected CRF (Kraehenbuehl and Koltun, NeurIPS 2011) through pydensecrf (extra ``crf``)."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np
import numpy.typing as npt

from vos_shared.errors import MissingExtra
from vos_shared.method import Frame, ObjectMask


@dataclass(frozen=True)
class CRFSettings:
    """Parameters of the CRF.

    Attributes:
        confidence: probability of a pixel's label, for unary terms from labels.
        smoothness_std: standard deviation of the smoothness kernel in pixels.
        smoothness_weight: compatibility of the smoothness kernel.
        appearance_std: standard deviation of the appearance kernel in pixels.
        colour_std: standard deviation of the appearance kernel in grey levels.
        appearance_weight: compatibility of the appearance kernel.
        iterations: number of mean-field iterations.
    """

    confidence: float = 0.9
    smoothness_std: float = 3.0
    smoothness_weight: float = 3.0
    appearance_std: float = 40.0
    colour_std: float = 5.0
    appearance_weight: float = 10.0
    iterations: int = 5


def refine_labels(frame: Frame, labels: ObjectMask, settings: CRFSettings | None = None) -> ObjectMask:
    """Refine a hard labelling.

    Args:
        frame: uint8 RGB [H, W, 3].
        labels: ids, uint8 [H, W]; each has the probability `CRFSettings.confidence`.
        settings: parameters; by default those of OSMN's post-processing.

    Returns:
        Refined ids, uint8 [H, W].

    Raises:
        MissingExtra: pydensecrf is not installed.
    """
    settings = settings or CRFSettings()
    ids = np.unique(labels)  # Only ids that occur share the probability.
    if len(ids) == 1:  # There is nothing to refine.
        return labels.copy()
    other = (1 - settings.confidence) / (len(ids) - 1)
    probabilities = np.where(ids[:, None, None] == labels, settings.confidence, other)
    refined: ObjectMask = ids[refine_probabilities(frame, probabilities.astype(np.float32), settings)]
    return refined


def refine_probabilities(
    frame: Frame, probabilities: npt.NDArray[np.float32], settings: CRFSettings | None = None
) -> ObjectMask:
    """Refine probabilities, float32 [K + 1, H, W] in 0..1 with the background first; returns ids, uint8 [H, W].

    Raises:
        MissingExtra: pydensecrf is not installed.
    """
    settings = settings or CRFSettings()
    densecrf = require_densecrf()
    count, height, width = probabilities.shape
    unary = -np.log(np.clip(probabilities, 1e-5, 1.0)).reshape(count, -1)
    crf = densecrf.DenseCRF2D(width, height, count)
    crf.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    crf.addPairwiseGaussian(sxy=settings.smoothness_std, compat=settings.smoothness_weight)
    crf.addPairwiseBilateral(
        sxy=settings.appearance_std,
        srgb=settings.colour_std,
        rgbim=np.array(frame, np.uint8, order="C"),  # pydensecrf refuses read-only frames.
        compat=settings.appearance_weight,
    )
    marginals = np.asarray(crf.inference(settings.iterations))
    labels: ObjectMask = marginals.argmax(0).reshape(height, width).astype(np.uint8)
    return labels


def require_densecrf() -> ModuleType:
    """The module pydensecrf; raises early, before long work, when it is missing.

    Raises:
        MissingExtra: pydensecrf is not installed.
    """
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise MissingExtra("pydensecrf is needed for CRF refinement: pip install 'vos-shared[crf]'") from error
    module: ModuleType = densecrf
    return module
