"""The table of docs/guides/recipes.md: each recipe's own formula in float64 at every update."""

import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import brainsched

GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "recipes.md"
ROWS = dict(re.findall(r"^\| ([^|`]+) \| [^|]+ \| `(.+)` \|$", GUIDE.read_text(), re.MULTILINE))
LAYERS = ["embed/*", *(f"block{i}/*" for i in range(24)), "head/*"]
NAMES: dict[str, Any] = {**vars(brainsched), "jnp": jnp, "LAYERS": LAYERS}


def stages(n, boundaries, rates):
    return np.asarray(rates, np.float64)[np.searchsorted(boundaries, n, side="right")]


def half_cosine(x, start=1.0, end=0.0):
    return end + (start - end) * 0.5 * (1 + np.cos(np.pi * np.clip(x, 0, 1)))


def by_updates(epoch, warmup, rises, falls):
    return np.where(epoch < warmup, rises, falls)


def layers(decay):
    return 5e-4 * decay ** np.arange(25, -1, -1)


def linspace_then_cosine(n, start, base, final, warmup, total):
    """As DINO's and BEiT's cosine_scheduler, whose warm-up is np.linspace."""
    rises = start + (base - start) * n / (warmup - 1)
    return np.where(n < warmup, rises, half_cosine((n - warmup) / (total - warmup), base, final))


def goyal(n):
    rates = 3.2 * stages(n, np.array([30, 60, 80]) * 157, [1, 0.1, 0.01, 0.001])
    return by_updates(n, 5 * 157, 0.1 + (3.2 - 0.1) * n / (5 * 157), rates)


def efficientnet(n):
    decayed = 0.256 * 0.97 ** (n * 10 // (24 * 313))  # 2.4 epochs are 751.2 updates
    return by_updates(n, 5 * 313, 0.256 * n / (5 * 313), decayed)


def mlperf(n):
    steps = np.maximum(n - 560, 1)
    falls = (32 - 1e-4) * (1 - steps / (3600 - 560 + 1)) ** 2 + 1e-4
    return by_updates(n, 561, 32 * n / 560, falls)


def sgdr(n):
    epoch = n / 390
    cycle = np.floor(np.log2(epoch / 10 + 1)).astype(int)
    return half_cosine((epoch - 10 * (2.0**cycle - 1)) / (10 * 2.0**cycle), 0.05)


def cyclical(n):
    cycle = np.floor(1 + n / 4000)
    return 0.001 + 0.005 * np.maximum(0, 1 - np.abs(n / 2000 - 2 * cycle + 1))


def detectron2(n, *steps):
    alpha = n / 1000
    factor = np.where(n < 1000, 0.001 * (1 - alpha) + alpha, 1.0)
    return 0.02 * factor * stages(n, steps, [1, 0.1, 0.01])


def yolov5(n, start):
    goal = 0.01 * ((1 - n // 100 / 300) * (1 - 0.01) + 0.01)
    return np.where(n <= 300, start + (goal - start) * n / 300, goal)


def big_vision(n, rate, warmup):
    return rate * np.minimum(1, n / warmup)


def mae(n):
    epoch = n / 1251
    share = np.where(epoch < 5, epoch / 5, half_cosine((epoch - 5) / 45, 1.0, 0.002))
    return share[:, None] * layers(0.65)


def beit(n):
    return linspace_then_cosine(n, 0.0, 1.0, 0.002, 6260, 31_300)[:, None] * layers(0.75)


def fastai(n, start, middle, end):
    share = n / 1000
    up, down = half_cosine(share / 0.25, start, middle), half_cosine((share - 0.25) / 0.75)
    return np.where(share < 0.25, up, end + (middle - end) * down)


def megatron(n, coefficient):
    x = np.clip((n - 80_000) / 20_000, 0, 1)
    return np.where(n < 2000, 3e-4 * n / 2000, 3e-5 + (3e-4 - 3e-5) * coefficient(x))


def linear(n, base, warmup, total, last=0.0):
    falls = last + (base - last) * np.clip((total - n) / (total - warmup), 0, 1)
    return np.where(n < warmup, base * n / max(warmup, 1), falls)


def noam(n):
    with np.errstate(divide="ignore"):
        return 512**-0.5 * np.minimum(1 / np.sqrt(n), n * 4000**-1.5)


FORMULAS: dict[str, tuple[int, Any]] = {
    "ResNet, ImageNet": (120, lambda n: 0.1 * 0.1 ** (n // 30)),
    "ResNet, CIFAR-10": (64_000, lambda n: stages(n, [32_000, 48_000], [0.1, 0.01, 0.001])),
    "ResNet-110, CIFAR-10": (
        64_000,
        lambda n: stages(n, [400, 32_000, 48_000], [0.01, 0.1, 0.01, 0.001]),
    ),
    "Wide ResNet": (200, lambda n: stages(n, [60, 120, 160], [0.1, 0.02, 0.004, 0.0008])),
    "DenseNet": (300, lambda n: stages(n, [150, 225], [0.1, 0.01, 0.001])),
    "Goyal et al.": (90 * 157, goyal),
    "torchvision, 2021": (
        600,
        lambda n: np.where(n < 5, 0.5 * (0.01 + 0.99 * n / 5), half_cosine((n - 5) / 595, 0.5)),
    ),
    "Inception-v3": (100, lambda n: 0.045 * 0.94 ** (n // 2)),
    "MobileNetV3": (300, lambda n: 0.1 * 0.99 ** (n // 3)),
    "EfficientNet": (350 * 313, efficientnet),
    "MLPerf ResNet, LARS": (3600, mlperf),
    "DAWNBench CIFAR-10": (24 * 98, lambda n: np.interp(n / 98, [0, 5, 24], [0, 0.4, 0])),
    "SGDR": (150 * 390, sgdr),
    "Cyclical rates, CIFAR-10": (70_000, cyclical),
    "MoCo v2": (200, lambda n: half_cosine(n / 200, 0.03)),
    "DeiT": (
        300,
        lambda n: np.where(n < 5, 1e-6 + (1e-3 - 1e-6) * n / 5, half_cosine(n / 300, 1e-3, 1e-5)),
    ),
    "detectron2, 1x": (90_000, lambda n: detectron2(n, 60_000, 80_000)),
    "detectron2, 3x": (270_000, lambda n: detectron2(n, 210_000, 250_000)),
    "DETR": (300, lambda n: 0.1 ** (n[:, None] // 200) * np.array([1e-4, 1e-5])),
    "DeepLab": (30_000, lambda n: 0.007 * (1 - n / 30_000) ** 0.9),
    "mmsegmentation": (40_000, lambda n: (0.01 - 1e-4) * (1 - n / 40_000) ** 0.9 + 1e-4),
    "YOLOv5": (30_000, lambda n: yolov5(n, 0.0)),
    "YOLOv5, bias": (30_000, lambda n: yolov5(n, 0.1)),
    "YOLOv5, momentum": (30_000, lambda n: np.interp(n, [0, 300], [0.8, 0.937])),
    "BiT, 20k updates": (
        20_000,
        lambda n: (
            big_vision(n, 0.03, 500) * stages(n, [6000, 12_000, 18_000], [1, 0.1, 0.01, 0.001])
        ),
    ),
    "big_vision, cosine": (
        300_000,
        lambda n: big_vision(n, 1e-3, 10_000) * half_cosine((n - 10_000) / 290_000),
    ),
    "big_vision, linear": (300_000, lambda n: linear(n, 1e-3, 10_000, 300_000, 1e-5)),
    "big_vision, rsqrt": (
        300_000,
        lambda n: (
            big_vision(n, 1e-3, 10_000)
            / np.sqrt(np.maximum(n, 10_000) / 10_000)
            * np.minimum(1, (300_000 - n) / 50_000)
        ),
    ),
    "big_vision, stair": (
        90_000,
        lambda n: (
            big_vision(n, 0.03, 500)
            * np.array([1, 0.1, 0.01])[np.searchsorted([30_000, 60_000], n + 1)]
        ),
    ),
    "MAE, fine-tuning": (50 * 1251, mae),
    "BEiT, fine-tuning": (31_300, beit),
    "DINO": (125_100, lambda n: linspace_then_cosine(n, 0, 2e-3, 1e-6, 12_510, 125_100)),
    "DINO, weight decay": (125_100, lambda n: half_cosine(n / 125_100, 0.04, 0.4)),
    "DINO, teacher momentum": (125_100, lambda n: half_cosine(n / 125_100, 0.996, 1.0)),
    "fastai, one cycle": (1000, lambda n: fastai(n, 1e-2 / 25, 1e-2, 1e-2 / 1e5)),
    "fastai, momentum": (1000, lambda n: fastai(n, 0.95, 0.85, 0.95)),
    "Transformer (Noam)": (100_000, noam),
    "fairseq": (
        100_000,
        lambda n: np.where(
            n < 4000,
            1e-7 + n * (5e-4 - 1e-7) / 4000,
            5e-4 * 4000**0.5 * np.maximum(n, 1) ** -0.5,
        ),
    ),
    "T5 and PaLM": (100_000, lambda n: 1 / np.sqrt(np.maximum(n, 10_000))),
    "BERT": (
        1_000_000,
        lambda n: np.where(n < 10_000, 1e-4 * n / 10_000, 1e-4 * (1 - n / 1_000_000)),
    ),
    "RoBERTa": (500_000, lambda n: linear(n, 6e-4, 24_000, 500_000)),
    "LLaMA": (
        250_000,
        lambda n: np.where(
            n < 2000, 3e-4 * n / 2000, half_cosine((n - 2000) / 248_000, 3e-4, 3e-5)
        ),
    ),
    "OLMo": (557_000, lambda n: linear(n, 3e-4, 5000, 557_000, 3e-5)),
    "DeepSeek LLM": (
        212_000,
        lambda n: (
            4.2e-4
            * np.minimum(1, n / 2000)
            * stages(n, [0.8 * 212_000, 0.9 * 212_000], [1, 0.316, 0.1])
        ),
    ),
    "MiniCPM": (
        222_000,
        lambda n: np.where(
            n < 2000, 0.01 * n / 2000, 0.01 * 0.5 ** (np.maximum(n - 202_000, 0) / 5000)
        ),
    ),
    "Megatron WSD, linear": (100_000, lambda n: megatron(n, lambda x: 1 - x)),
    "Megatron WSD, cosine": (
        100_000,
        lambda n: megatron(n, lambda x: 0.5 * (np.cos(np.pi * x) + 1)),
    ),
    "Megatron WSD, minus_sqrt": (100_000, lambda n: megatron(n, lambda x: 1 - np.sqrt(x))),
    "Megatron WSD, exponential": (100_000, lambda n: megatron(n, lambda x: 2 * 0.5**x - 1)),
    "modded-nanogpt": (
        1770,
        lambda n: 0.05 * (0.1 + 0.9 * np.minimum(1, (1 - n / 1770) / 0.4)),
    ),
    "CleanRL, PPO": (9765, lambda n: (1 - n / 9765) * 2.5e-4),
    "AlphaZero": (
        700_000,
        lambda n: stages(n, [100_000, 300_000, 500_000], [0.2, 0.02, 0.002, 0.0002]),
    ),
}


def test_every_row_of_the_page_is_tested():
    assert list(ROWS) == list(FORMULAS)
    assert len(ROWS) >= 40


@pytest.mark.parametrize("name", FORMULAS)
def test_a_recipe_gives_the_rates_of_its_own_formula_at_every_update(name):
    updates, formula = FORMULAS[name]
    n = np.arange(updates)
    schedule = eval(ROWS[name], NAMES)
    is_value = isinstance(schedule, brainsched.ValueSchedule)
    found = schedule(n)[:, None] if is_value else schedule.lr_at(n)
    expected = np.asarray(formula(n)).reshape(found.shape)
    # Near its end 1 + cos(x) has lost its last digits, which is all that atol is for.
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=1e-12 * expected.max())
