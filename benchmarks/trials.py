"""What the engine does to a whole trial: its memory, its set-up and its time; printed by `benchmarks.ladder`."""

import io
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.released import Eager, Released
from idat_tune import data
from idat_tune.config import RunConfig
from idat_tune.cost import shapes
from idat_tune.data import Images, joined
from idat_tune.engine.cut import Cut
from idat_tune.engine.devices import choose_attention
from idat_tune.engine.optimizer import scheduler_for
from idat_tune.engine.resident import Resident
from idat_tune.run import advance, evaluate, run, run_on

TEST = 20_000  # images of a test split, about the mean of VTAB-1K


def report(config: RunConfig, device: torch.device) -> None:
    """Print everything, as Markdown."""
    print("## A trial\n\n| measured | |\n|---|---:|", flush=True)
    pair = RunConfig.for_task("cifar", {"student": "random:vit_base", "teacher": "random:vit_small"})
    print(f"| weights and saved activations of S -> B, batch 32, lean bf16, fake tensors | {saved(pair):.2f} GB |")
    if device.type == "cpu":  # the other machine may lack what makes the digits
        found = embedded()
        plain = found["plain eager loop"]
        for label, seconds in found.items():
            print(f"| embedded trial (digits, 10 epochs), CPU s: {label} | {seconds:.2f} ({plain / seconds:.2f}x) |")
    for label, cold, warm in set_ups(config, device):
        print(f"| set-up of a trial, {label}: first of a worker, later ones, s | {cold:.2f}, {warm:.3f} |", flush=True)
    if device.type == "cuda":
        found = whole(config, device)
        ours, theirs = found["trial_s"], found["released_s"]
        print(f"| whole trial: 100 epochs of 1,000 + 100 x 200 val + {TEST:,} test, s | {ours:.1f} |")
        print(f"| the released protocol, 110 epochs extrapolated from 1, s | {theirs:.0f} ({theirs / ours:.0f}x) |")
    print()


def saved(config: RunConfig) -> float:
    """GB of all weights and of what the forward pass keeps for the backward pass, from shapes alone."""
    total = 0
    for name in (config.student, config.teacher):
        model = shapes(name, 100, config)
        model.dtype = torch.bfloat16
        with FakeTensorMode():
            _fill(model)
            choose_attention(model, True, torch.device("cuda"))
            split = Cut(model)
            pixels = torch.zeros(config.batch_size, 3, 224, 224, dtype=torch.uint8)
            kept = {p.untyped_storage()._cdata: p.untyped_storage() for p in model.parameters()}

            def keep(tensor: torch.Tensor, kept: dict = kept) -> torch.Tensor:
                kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
                return tensor

            parts = split.prefix(pixels)
            with saved_tensors_hooks(keep, lambda tensor: tensor):
                logits_BC = split.suffix(parts)
            total += sum(storage.nbytes() for storage in kept.values())
            del logits_BC
    return total / 1e9


def _fill(model: torch.nn.Module) -> None:
    """Within a FakeTensorMode, give a model without values fake ones in bf16 on the CPU."""
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            fake = torch.empty(value.shape, dtype=torch.bfloat16)
            module._parameters[name] = torch.nn.Parameter(fake, requires_grad=value.requires_grad)
        for name, value in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty(value.shape)


def embedded() -> dict[str, float]:
    """CPU seconds of a default trial, by way of training it: medians of rounds in which each has its turn."""
    config = RunConfig.for_task("digits", {"device": "cpu"})
    train, val = (data.load("digits", split, 32, 1) for split in ("train", "val"))
    ways: dict[str, tuple[Callable[..., None], int]] = {"plain eager loop": (plainly, 1), "`run`": (leanly, 1)}
    ways |= {f"{count} trials as one, each": (partial(as_one, count), count) for count in (2, 4, 8)}
    seconds: dict[str, list[float]] = {label: [] for label in ways}
    for _ in range(5):
        for label, (way, count) in ways.items():
            began = time.process_time()
            way(config, train, val)
            seconds[label].append((time.process_time() - began) / count)
    return {label: statistics.median(found) for label, found in seconds.items()}


def plainly(config: RunConfig, train: Images, val: Images) -> None:
    """The eager loop, as `run` was before its engine."""
    loop = Eager(config, config.classes, train, torch.device("cpu"), resident=True)
    scheduler = scheduler_for(config, loop.optimizer)
    measured_on = [(torch.tensor(val.pixels), torch.tensor(val.labels))]
    for epoch in range(config.epochs):
        for model in loop.models:
            model.train()
        steps = len(train) // config.batch_size
        losses = [loop.step(index) for index in torch.randperm(len(train)).split(config.batch_size)[:steps]]
        torch.stack(losses).mean().item()
        scheduler.step(epoch + 1)
        for model in loop.models:
            evaluate(model, measured_on, config)


def leanly(config: RunConfig, train: Images, val: Images) -> None:
    """What replaced it."""
    for _ in run(config, train, val):
        pass


def as_one(count: int, config: RunConfig, train: Images, val: Images) -> None:
    """Trials of other seeds and learning rates, stacked."""
    worker = Resident(joined(train, val), torch.device("cpu"), recorded=True)
    rows = torch.arange(len(train) + len(val)).tensor_split([len(train)])
    configs = [config.updated({"seed": number, "optim.lr": 1e-3 * (number + 1)}) for number in range(count)]
    trials = [run_on(worker, of_one, *rows) for of_one in configs]
    while trials[0].goes_on:
        advance(trials)


def set_ups(config: RunConfig, device: torch.device) -> list[tuple[str, float, float]]:
    """Wall seconds from a config until it can step, prefix included: of a worker's first trial, and of later ones.

    On CUDA until the first step is done, since that is when it is recorded.
    """
    found = []
    glyphs = RunConfig.for_task("digits", {"device": device.type})
    for label, first in (("embedded pair", glyphs), (f"{config.student}, {config.teacher}", config)):
        size, channels = (32, 1) if first is glyphs else (224, 3)
        count = 1000 if first is glyphs or device.type == "cuda" else 40
        pixels = np.zeros((count, channels, size, size), np.uint8)
        images = Images(pixels, np.arange(count) % first.classes)
        rows = torch.arange(count)
        began = time.perf_counter()
        worker = Resident(images, device)
        started = []
        for seed in range(6):
            other = first.updated({"seed": seed, "adapter.hidden_dim": 4 + seed % 3, "optim.lr": 1e-3 + seed * 1e-4})
            training = run_on(worker, other, rows, rows[:0])
            if device.type == "cuda":
                training.engine.train(rows[None, : first.batch_size].to(device), 1e-3, 1.0)
                torch.cuda.synchronize()
            started.append(time.perf_counter() - began)
            began = time.perf_counter()
        found.append((f"{label}, {count} images", started[0], statistics.median(started[1:])))
    return found


def whole(config: RunConfig, device: torch.device) -> dict[str, float]:
    """Seconds of a trial of 100 epochs with one test at the end, and of the released protocol, from 1 of its epochs."""
    random = np.random.default_rng(0)
    images = Images(random.integers(0, 256, (1000, 3, 224, 224), np.uint8), random.integers(0, config.classes, 1000))
    rows = torch.arange(1000)
    began = time.perf_counter()
    training = run_on(Resident(images, device), config.updated({"epochs": 100}), rows, rows[800:])
    for _ in training:
        pass
    evaluate(
        training.student, ((training.resident.pixels, training.resident.labels) for _ in range(TEST // 1000)), config
    )
    ours = time.perf_counter() - began
    loop = Released(config, config.classes, images, device)
    loop.step(torch.arange(config.batch_size))
    began = time.perf_counter()
    for index in torch.randperm(1000).split(config.batch_size)[:31]:
        loop.step(index)
    decoded(1000 + TEST)
    testing(loop, TEST)
    return {"trial_s": ours, "released_s": (time.perf_counter() - began) * 110}


def testing(loop: Released, count: int) -> None:
    """The released evaluation of the student, at its batch of 64 on half precision."""
    loop.student.eval()
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.float16):
        for first in range(0, count, 64):
            index = torch.arange(first, first + 64) % 1000
            loop.student(loop.pixels[index].to(loop.device)).argmax(-1).cpu()
    loop.student.train()


def decoded(count: int, workers: int = 8) -> None:
    """Wait as long as that many JPEGs of 500 x 333 take to be decoded and resized by 8 loaders."""
    noise = np.random.default_rng(0).integers(0, 256, (21, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((500, 333), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    began = time.perf_counter()
    for _ in range(50):
        Image.open(io.BytesIO(file.getvalue())).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    time.sleep((time.perf_counter() - began) / 50 * count / workers)
