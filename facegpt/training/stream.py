"""The stream of batches: sources mixed by weight, checked before training, prepared ahead by a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from transformers import ProcessorMixin

from facegpt.data.collate import collate
from facegpt.data.conversation import encode_conversation
from facegpt.data.mixing import MixedSamples, batch_numbers
from facegpt.data.records import FaceRecords, read_records
from facegpt.data.sources import (
    ImageToFace,
    Instruct,
    Source,
    TextToFace,
)
from facegpt.data.validate import validate_instructions, validate_records
from facegpt.errors import HeadMismatchError, SampleError
from facegpt.head.model import HeadModel
from facegpt.head.parameters import ParameterLayout
from facegpt.sample import Batch
from facegpt.training.engine import Ranks
from facegpt.training.settings import SourceSettings, TrainSettings

Item = TypeVar("Item")


class Stream:
    """This rank's share of the samples of every step.

    Sample numbers follow from seed and step alone (`facegpt.data.mixing`), so a resumed run goes on with the
    very samples that the uninterrupted one would have seen.
    """

    def __init__(self, settings: TrainSettings, ranks: Ranks, processor: ProcessorMixin) -> None:
        """Open the sources. Raises SampleError when one cannot be read."""
        self.settings, self.ranks, self.processor = settings, ranks, processor
        self.active_sources = {name: s for name, s in settings.data.sources.items() if s.weight > 0}
        self.names = list(self.active_sources)
        sources = [_open(name, source, settings) for name, source in self.active_sources.items()]
        weights = [source.weight for source in self.active_sources.values()]
        self.samples = MixedSamples(sources, weights, settings.seed)

    def steps(self, first: int) -> Iterator[list[Batch]]:
        """The micro-batches of step `first` (from 1), `first + 1`, ...; errors name the sample."""
        plan = self.settings.optimization
        numbers = batch_numbers(
            first - 1, plan.steps, plan.batch * plan.accumulation, self.ranks.rank, self.ranks.world
        )
        return prefetch((self._micro_batches(step) for step in numbers), self.settings.data.prefetch)

    def _micro_batches(self, numbers: list[int]) -> list[Batch]:
        size = self.settings.optimization.batch
        return [
            collate(
                [self.samples[number] for number in numbers[start : start + size]],
                self.processor,
                self.settings.data.max_length,
            )
            for start in range(0, len(numbers), size)
        ]

    def check(self, head: HeadModel, layout: ParameterLayout) -> None:
        """Find bad data before training; ranks share the work, so each may raise an error of its own.

        Every file is validated, then the conversations of the run's first `data.check` samples are tokenised
        as training will do it, without their images.

        Raises SampleError (bad file, truncation that cuts a token), HeadMismatchError (parameters to learn
        from belong to another head).
        """
        if self.settings.data.check_files:
            self._check_files()
        if self.settings.objective.parameters > 0:
            for source in self.samples.sources:
                if not isinstance(source, Instruct):
                    _check_truth(source.records, head, layout)  # type: ignore[attr-defined]
        plan = self.settings.optimization
        total = plan.steps * plan.batch * plan.accumulation * self.ranks.world
        limit = self.settings.data.check
        locate = self.samples.mixture.locate
        for number in range(self.ranks.rank, total if limit < 0 else min(limit, total), self.ranks.world):
            place = locate(number)
            name, messages = self.samples.sources[place.source].messages(place.index, place.epoch)
            encode_conversation(messages, self.processor, self.settings.data.max_length, name)

    def _check_files(self) -> None:
        """Validate the data files; source number n is looked at by rank n modulo the number of ranks."""
        done = set()
        for source in self.active_sources.values():
            path, images = _places(source, self.settings)
            key = (path, images, source.kind == "instruct")
            if key in done:
                continue
            done.add(key)
            if (len(done) - 1) % self.ranks.world != self.ranks.rank:
                continue
            if source.kind == "instruct":
                validate_instructions(path, images)
            else:
                validate_records(path)


def _open(name: str, options: SourceSettings, settings: TrainSettings) -> Source:
    source: Source
    path, images = _places(options, settings)
    if options.kind == "instruct":
        source = Instruct(path, images)
    else:
        kind = ImageToFace if options.kind == "image_to_face" else TextToFace
        source = kind(read_records(path), settings.data.render_size, settings.seed)
    source.name = name  # the name in the settings, which the metrics show
    return source


def _places(options: SourceSettings, settings: TrainSettings) -> tuple[Path, Path | None]:
    """Path of a source and, for instruct, folder of its images."""
    folder = Path(settings.data.folder)
    return folder / options.path, None if options.images is None else folder / options.images


def _check_truth(records: FaceRecords, head: HeadModel, layout: ParameterLayout) -> None:
    """Supervision by parameters is possible only with those of this very head."""
    if not head.has_id(records.metadata.get("head_id")):
        raise HeadMismatchError(
            f"objective.parameters is above 0, but the parameters in {records.path} are of head "
            f"{records.metadata.get('head_id', 'unknown')} and the run has head {head.id}; set it to 0 or "
            "take records made with this head"
        )
    truth = records[0].parameters
    if truth is None or len(truth) != layout.total:
        raise SampleError(
            f"objective.parameters is above 0, but records in {records.path} have "
            f"{0 if truth is None else len(truth)} of the {layout.total} parameters; set it to 0"
        )


def prefetch(items: Iterable[Item], ahead: int) -> Iterator[Item]:
    """The same items, up to `ahead` of them made beforehand by a thread; its exceptions are raised here.

    A thread suffices, because decoding and preprocessing images release the interpreter's lock.
    """
    ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(ahead)
    stopped = threading.Event()

    def put(entry: tuple[Item | None, BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
        except BaseException as error:
            put((None, error))
        else:
            put((None, None))

    thread = threading.Thread(target=work, daemon=True, name="batches")
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        stopped.set()
        thread.join()  # torch aborts a process that ends while a thread is inside it
