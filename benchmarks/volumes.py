"""Cost of scoring, storing and augmenting volumes of the size of BraTS, beside simpler or earlier ways.

Times are CPU seconds of one thread, the median over the repeats; ways that are compared take turns in every repeat.

    python benchmarks/volumes.py                # a minute
    python benchmarks/volumes.py --repeats 15
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from anysubset.experiments.data_settings import AugmentSettings
from anysubset.scoring.segmentation_metrics import hd95
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.augmentation import draw_turn
from anysubset.volumes.cache import load_prepared, save_prepared
from anysubset.volumes.geometry import Grid
from anysubset.volumes.preprocessing import Prepared, prepare
from anysubset.volumes.reading import PatientVolumes
from anysubset.volumes.training_patches import TrainingPatches
from anysubset.volumes.whole_volume import probability_metrics

SHAPE = (240, 240, 155)
HEAD = (70, 85, 70)  # Semi-axes of the head in voxels: its box has 140 x 170 x 140 voxels, as in BraTS.
PATCH = (128, 128, 128)
MODALITIES = ("flair", "t2", "t1ce", "t1")
REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
MILLIMETRE = (1.0, 1.0, 1.0)


def made_patient(generator: np.random.Generator) -> PatientVolumes:
    """An ellipsoid of noise with three nested, irregular regions."""
    offsets = [(np.arange(length) - length / 2) / axis for length, axis in zip(SHAPE, HEAD, strict=True)]
    x, y, z = np.meshgrid(*offsets, indexing="ij", sparse=True)
    inside = x**2 + y**2 + z**2 < 1
    distance = np.sqrt((x - 0.3) ** 2 + (y + 0.2) ** 2 + z**2) + 0.1 * smooth_noise(generator)
    label = np.select([distance < 0.2, distance < 0.27, distance < 0.4], [1, 4, 2], 0).astype(np.uint8) * inside
    volumes = {
        name: np.where(inside, generator.normal(500, 100, SHAPE).clip(1), 0).round().astype(np.float32)
        for name in MODALITIES
    }
    return PatientVolumes("made", volumes, label, Grid(SHAPE, np.eye(4)), None)


def smooth_noise(generator: np.random.Generator) -> NDArray[np.float64]:
    """Noise of standard deviation 1 that is correlated over two voxels."""
    noise = ndimage.gaussian_filter(generator.standard_normal(SHAPE), 2)
    return noise / noise.std()


def cpu_seconds(ways: dict[str, Callable[[int], object]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of a call of each way; it gets the number of the repeat. The first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            start = time.process_time()
            way(repeat)
            seconds[name].append(time.process_time() - start)
    return {name: round(statistics.median(times[1:]), 4) for name, times in seconds.items()}


# ------------------------------------------------------------------------------------------------------- scoring


def hd95_of_monai(prediction: Tensor, target: Tensor) -> Tensor:
    """HD95 of each region by MONAI."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return compute_hausdorff_distance(
            prediction[None].float(), target[None].float(), include_background=True, percentile=95, spacing=[1, 1, 1]
        )


def scoring(target: Tensor, head: Tensor, generator: np.random.Generator, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds of HD95 of three regions on a good and on a scattered mask, and of the scores of probabilities."""
    noise = torch.from_numpy(smooth_noise(generator))
    eroded = [ndimage.binary_erosion(region) & (noise < 2).numpy() for region in target.numpy()]
    masks = {
        "good": torch.from_numpy(np.stack(eroded)),
        "scattered": torch.stack([head & (noise > least) for least in (0.2, 0.8, 1.5)]),
    }
    seconds = {}
    for name, mask in masks.items():
        ways = {
            "ours": lambda _, m=mask: hd95(m, target, MILLIMETRE),
            "MONAI": lambda _, m=mask: hd95_of_monai(m, target),
        }
        seconds[f"HD95, {name} mask"] = cpu_seconds(ways, repeats)
    logits = torch.randn(target.shape)
    seconds["ece, nll and brier"] = cpu_seconds({"ours": lambda _: probability_metrics(logits, target)}, repeats)
    return seconds


# ------------------------------------------------------------------------------------------------------- patches


def plain_patch(image: NDArray[np.float32], label: NDArray[np.uint8], seed: int) -> tuple[Tensor, Tensor]:
    """The same augmentation of a patch at a random position of a mapped array, written down in the shortest way."""
    generator = np.random.default_rng(seed)
    start = [generator.integers(max(1, length - size + 1)) for length, size in zip(label.shape, PATCH, strict=True)]
    where = tuple(slice(low, low + size) for low, size in zip(start, PATCH, strict=True))
    flips = [axis for axis in (1, 2, 3) if generator.random() < 0.5]
    patch = torch.from_numpy(np.flip(image[(slice(None), *where)], flips).copy())
    regions = torch.from_numpy(np.flip(label[where][None], flips).copy())
    if generator.random() < 0.3:
        turn = draw_turn(3, generator)
        matrix = torch.eye(3, 4)[None] * torch.tensor([*turn.scales, 1.0])
        grid = affine_grid(matrix, [1, 4, *PATCH], align_corners=False)
        patch = grid_sample(patch[None], grid, align_corners=False)[0]
        regions = grid_sample(regions[None].float(), grid, mode="nearest", align_corners=False)[0].to(torch.uint8)
    shift, *scales = generator.uniform(-0.1, 0.1, 5).tolist()
    for volume, scale in zip(patch, scales, strict=True):
        volume *= 1 + scale
        foreground = volume != 0
        volume[foreground] += shift * volume[foreground].std()
    return patch, torch.stack([torch.isin(regions[0], torch.tensor(values)) for values in REGIONS.values()])


def patches(path: Path, patient: Prepared, repeats: int) -> dict[str, float]:
    """Mean CPU seconds of a patch from the cache file, and of `plain_patch`, over the same number of draws."""
    folder = path.parent
    np.save(folder / "image.npy", patient.image.float().numpy())
    np.save(folder / "label.npy", patient.labels_in(patient.box).numpy())
    image, label = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("image", "label"))
    dataset = TrainingPatches(lambda _: load_prepared(path), ["made"], PATCH, AugmentSettings(), seed=0)
    ways = {"ours": lambda number: dataset[0, number], "mapped array": lambda number: plain_patch(image, label, number)}
    seconds = dict.fromkeys(ways, 0.0)
    count = 8 * repeats
    for number in range(-1, count):
        for name, way in ways.items():
            start = time.process_time()
            way(max(number, 0))
            seconds[name] += (time.process_time() - start) * (number >= 0)
    return {name: round(total / count, 4) for name, total in seconds.items()}


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    volumes = made_patient(generator)
    task = Segmentation(MODALITIES, REGIONS, PATCH)
    start = time.process_time()
    patient = prepare(volumes, task)
    results = {"torch": torch.__version__, "seconds of preparation": round(time.process_time() - start, 2)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.safetensors"
        save_prepared(patient, path, {})
        results["MB of a prepared patient"] = round(path.stat().st_size / 1e6, 1)
        before = 4 * patient.image.numel() + 3 * np.prod(SHAPE)
        results["MB with a float32 image and uncropped regions"] = round(float(before) / 1e6, 1)
        results["CPU seconds of a patch"] = patches(path, patient, options.repeats)
    head = torch.from_numpy(volumes.volumes["flair"] > 0)
    results["CPU seconds of scores"] = scoring(patient.target, head, generator, options.repeats)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
