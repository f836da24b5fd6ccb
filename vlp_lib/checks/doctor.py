"""Before a long run: is the installation whole, does the run fit, how long will it take?"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement

from vlp_lib.bench import forecast
from vlp_lib.bench.budget import GIB, RESERVE, Need, Plan, Probe, matrix_rate, plan
from vlp_lib.bench.latency import SIZES
from vlp_lib.config import Profile, Variant
from vlp_lib.errors import UserError
from vlp_lib.trainers.trained import device_at_hand

_PACKAGE = "vlp-lib"
_IMPORT_NAMES = {"pillow": "PIL"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: fine, or with what to do about it."""

    name: str
    fine: bool
    said: str

    def __str__(self) -> str:
        return f"{'ok ' if self.fine else 'NO '} {self.name:<14} {self.said}"


@dataclass(frozen=True)
class Estimate:
    """What a pretraining will need.

    Attributes:
        parameters: numbers in the model.
        images: a step, over all GPUs and parts.
        plain, checkpointed: memory without and with checkpointing.
        memory: bytes of the GPU (or machine) that it has to fit into; 0 where nobody knows.
        plan: how it fits, or None.
        operations: of an image with its sentences, forward and backward.
        rate: operations a second of the device's best matrix product.
        probe_images, probe_seconds: a whole step that was measured.
        samples: of the whole pretraining.
    """

    parameters: int
    images: int
    processes: int
    plain: Need
    checkpointed: Need
    memory: float
    plan: Plan | None
    operations: int
    rate: float
    probe_images: int
    probe_seconds: float
    samples: int

    @property
    def share(self) -> float:
        """Share of the matrix rate that the measured step reaches."""
        return self.operations * self.probe_images / self.probe_seconds / self.rate

    @property
    def rate_at_best(self) -> float:
        """Samples a second of all devices together, were nothing done but matrix products at full rate."""
        return self.processes * self.rate / self.operations

    @property
    def rate_measured(self) -> float:
        """Samples a second of all devices together, at the measured step's pace."""
        return self.processes * self.probe_images / self.probe_seconds


def _import(name: str) -> str | None:
    """The first line of what goes wrong when a package is imported, or None."""
    try:
        import_module(_IMPORT_NAMES.get(name, name.replace("-", "_")))
    except Exception as error:  # a broken installation raises anything
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def check_packages() -> list[Check]:
    """Every package that the library needs: there, of a version in its range, and importable."""
    checks = []
    for text in metadata.requires(_PACKAGE) or []:
        needed = Requirement(text)
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            checks.append(Check(needed.name, False, f"missing: pip install '{needed}'"))
            continue
        if not needed.specifier.contains(version, prereleases=True):
            checks.append(Check(needed.name, False, f"{version}, needed is {needed.specifier}: pip install '{needed}'"))
            continue
        broken = _import(needed.name)
        checks.append(Check(needed.name, broken is None, version if broken is None else f"{version}, but {broken}"))
    return checks


def check_machine(results: Path, needed: int) -> list[Check]:
    """Python, the device, and the folder of results: whether it can be written and holds a run's checkpoints."""
    device = device_at_hand()
    checks = [Check("python", True, platform.python_version())]
    if device.type == "cuda":
        fine = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name(device)
        said = "multiplies bf16" if fine else "multiplies no bf16: training falls back to float32"
        checks.append(Check("device", True, f"{torch.cuda.device_count()} × {name}, {said}"))
    else:
        checks.append(Check("device", True, f"no GPU: {os.cpu_count()} CPU cores, fit for the profiles smoke and tiny"))
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
        free = shutil.disk_usage(results).free
        said = f"{results}: {free / GIB:,.0f} GiB free, a run keeps up to {needed / GIB:.1f} GiB of checkpoints"
        checks.append(Check("results", free > needed, said))
    except OSError as error:
        checks.append(Check("results", False, f"{results} cannot be written ({error.strerror}): set VLP_RESULTS"))
    return checks


def checkpoint_bytes(parameters: int, keep: int) -> int:
    """Disk that a run takes at most: the best weights, and one state more than are kept, with AdamW's moments."""
    return 4 * parameters * (1 + 3 * (keep + 1))


def estimate(profile: Profile, variant: Variant, pairs: int, processes: int, memory: float | None) -> Estimate:
    """Measure what a pretraining needs with a probe of its full size on the device at hand.

    Its vocabularies are the real data sets' (BERT's words among them), which the embedded corpus's are not larger than.

    Args:
        pairs: image–sentence pairs of the corpus.
        processes: GPUs.
        memory: bytes of each; None takes the GPU's at hand, or the machine's where there is none.

    Raises UserError where the batch cannot be shared out to so many processes.
    """
    training, device = profile.training, device_at_hand()
    if processes < 1 or training.batch_size % processes:
        raise UserError(
            f"training.batch_size {training.batch_size} cannot be shared out to {processes} GPUs: choose a divisor"
        )
    if memory is None:
        gpu = device.type == "cuda"
        memory = (
            torch.cuda.get_device_properties(device).total_memory
            if gpu
            else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        )
    probe = Probe(profile, variant, SIZES, device)
    plain, checkpointed = probe.needs()
    operations = probe.operations()
    images = min(32, training.batch_size // processes) if device.type == "cuda" else 2
    seconds = probe.step_seconds(images, 5 if device.type == "cuda" else 2)
    dtype = torch.bfloat16 if probe.bf16 else torch.float32
    return Estimate(
        parameters=probe.parameters,
        images=training.batch_size,
        processes=processes,
        plain=plain,
        checkpointed=checkpointed,
        memory=memory,
        plan=plan(plain, checkpointed, training.batch_size, processes, memory),
        operations=operations,
        rate=matrix_rate(device, dtype),
        probe_images=images,
        probe_seconds=seconds,
        samples=forecast.samples(profile, pairs),
    )


def advice(found: Estimate, profile: Profile) -> str:
    """What to set so that it fits, in one line."""
    training, memory = profile.training, f"{found.memory / GIB:.0f} GiB"
    if found.plan is None:
        return f"does not fit into {memory}: take a GPU with more memory, or a smaller model"
    asked = training.batch_size // found.processes // training.accumulation
    need = found.checkpointed if training.checkpointing else found.plain
    if need.total(asked, found.processes) <= (1 - RESERVE) * found.memory:
        return f"fits into {memory} as it is"
    settings = [f"--set training.accumulation={found.plan.accumulation}"]
    settings += ["--set training.checkpointing=true"] if found.plan.checkpointing else []
    return f"does not fit into {memory} as it is; with {' '.join(settings)} it takes {found.plan.bytes / GIB:.1f} GiB"


def report(found: Estimate, profile: Profile, variant: Variant) -> str:
    """The estimate, to be read."""
    training = profile.training
    share = training.batch_size // found.processes // training.accumulation

    def memory(name: str, need: Need) -> str:
        return (
            f"  {name:<21} {need.total(share, found.processes) / GIB:8.1f} GiB  = weights "
            f"{need.parameters / GIB:.2f} + gradients {need.gradients / GIB:.2f} + AdamW {need.optimiser / GIB:.2f} + "
            f"activations {need.fixed / GIB:.2f} + {share} × {need.per_image / GIB:.4f}"
        )

    def pace(name: str, rate: float) -> str:
        return f"  {name:<21} {rate:10,.1f} samples/s  {forecast.hours(found.samples, rate):12,.1f} h"

    return "\n".join(
        (
            f"{profile.name}, {variant.name}: {found.parameters / 1e6:,.1f} million parameters, "
            f"{profile.model.image_size} px, {found.images} images a step on {found.processes} process(es), in "
            f"{training.accumulation} part(s)",
            f"memory a process at {share} images (activations measured on this device):",
            memory("as it is", found.plain),
            memory("with checkpointing", found.checkpointed),
            f"  {advice(found, profile)}",
            f"time for {found.samples:,} samples of {found.operations / 1e9:,.1f} GFLOP each, on {found.processes} × "
            f"this device ({found.rate / 1e12:,.2f} TFLOP/s in matrix products):",
            pace("at that rate", found.rate_at_best),
            pace(f"at {found.share:.0%} of it, measured", found.rate_measured),
            f"the aim, {forecast.TARGET_RATE:,.0f} samples/s on one GPU, takes "
            f"{forecast.TARGET_RATE * found.operations / 1e12:,.1f} TFLOP/s; the paper's own pretraining took "
            f"{forecast.paper_hours():.0f} V100-hours",
        )
    )
