"""The worker process: runs one method on its sequences and sends events to the parent through a pipe."""

from __future__ import annotations

import operator
import traceback
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import EntryPoint
from multiprocessing.connection import Connection

from comparison.events import Began, Failed, Finished, FrameDone, Loaded, one_line, reason_of
from comparison.jobs import Job
from comparison.processes import Stopped, detach
from comparison.records import Model, SequenceRun
from vos_shared.datasets import VideoSequence
from vos_shared.errors import BadResults, UserError
from vos_shared.masks import describe_size
from vos_shared.method import ENTRY_POINT_GROUP, Method, ModelInfo, ObjectMask, Segmenter
from vos_shared.sequence_loop import segment_sequence


def work(job: Job, connection: Connection) -> None:
    """Run a job; the target of the worker process. Any failure is sent as `Failed`."""
    detach(job.log)
    try:
        _run(job, connection)
    except Stopped:  # The parent has closed the pipe.
        return
    except UserError as error:
        connection.send(Failed(one_line(str(error)), is_users=True))
    except BaseException as error:  # A method may raise anything; it becomes the reason in its row.
        connection.send(Failed(reason_of(error), is_users=False))
        traceback.print_exc()
        raise SystemExit(1) from None


def _run(job: Job, connection: Connection) -> None:
    method: Method = EntryPoint(job.method, job.entry, ENTRY_POINT_GROUP).load()
    segmenter = method.load(job.weights, job.device, job.precision, variant=job.variant)
    model = _model(segmenter.info)
    connection.send(Loaded())
    for sequence in job.pending():
        connection.send(Began(sequence.name))
        _run_sequence(job, method, segmenter, model, sequence, lambda: connection.send(FrameDone()))
    connection.send(Finished())


def _run_sequence(
    job: Job,
    method: Method,
    segmenter: Segmenter,
    model: Model,
    sequence: VideoSequence,
    on_frame: Callable[[], object],
) -> None:
    with job.results().writer(sequence.name, sequence.frame_names, job.inputs[sequence.name]) as writer:
        timing = segment_sequence(
            segmenter,
            sequence,
            lambda item: writer.write(item.name, _fitting(item.segmentation.mask, sequence)),
            supervision=method.supervision,
            device=job.device,
            seed=job.seed,
            on_frame=on_frame,
        )
        seconds = timing.prepare_seconds + sum(timing.frame_seconds)
        run = SequenceRun(timing.frames, seconds, timing.peak_memory_bytes)
        writer.extra({"run": asdict(run), "model": asdict(model), "timing": timing.to_json()})


def _model(info: ModelInfo) -> Model:
    """The model information of a segmenter, checked, as a method may return anything.

    Raises:
        TypeError: it is not a `ModelInfo`, or its fields have other types.
    """
    if not isinstance(info, ModelInfo):
        raise TypeError(f"Segmenter.info is a {type(info).__name__}, not a ModelInfo")
    try:
        parameters = operator.index(info.parameters)
    except TypeError:
        raise TypeError(f"ModelInfo.parameters is {info.parameters!r}, not a whole number") from None
    if parameters < 0 or not isinstance(info.weights, str) or info.trained not in (True, False):
        raise TypeError(f"{info!r}: expected parameters of 0 or more, weights as text, trained as True or False")
    return Model(parameters, one_line(info.weights), bool(info.trained))


def _fitting(mask: ObjectMask, sequence: VideoSequence) -> ObjectMask:
    """Return the mask if it has the size of its frame.

    Raises:
        BadResults: it has another size.
    """
    if mask.shape != sequence.video.size:
        raise BadResults(
            f"its masks cannot be used: one is {describe_size(mask.shape)}, the frames of {sequence.name} are"
            f" {describe_size(sequence.video.size)}"
        )
    return mask
