"""Draw every schedule, as in the README.

Run it with ``python examples/gallery.py``; it writes ``examples/gallery.png``.
"""

import argparse
import pathlib

import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt

import brainsched as bs

EPOCHS = 100

# Each with a base rate of 1, over 100 epochs
SCHEDULES = [
    bs.PiecewiseConstantSchedule(1.0, [30, 60, 80], [1.0, 0.5, 0.2, 0.05]),
    bs.PiecewiseLinearSchedule(1.0, [0, 20, 60, 90], [0.1, 1.0, 0.3, 0.0]),
    bs.StepLR(1.0, step_size=20, gamma=0.5),
    bs.MultiStepLR(1.0, milestones=[40, 70], gamma=0.3),
    bs.ConstantLR(1.0, factor=0.4, total_iters=30),
    bs.LinearLR(1.0, start_factor=0.1, end_factor=1.0, total_iters=60),
    bs.PolynomialLR(1.0, total_iters=90, power=2.0),
    bs.ExponentialLR(1.0, gamma=0.96),
    bs.ExponentialDecayLR(1.0, decay_steps=20, decay_rate=0.5, transition_begin=20, end_value=0.2),
    bs.InverseTimeDecayLR(1.0, decay_steps=15),
    bs.InverseSqrtLR(1.0, warmup_steps=15),
    bs.CosineAnnealingLR(1.0, T_max=90, eta_min=0.05),
    bs.CosineAnnealingWarmRestarts(1.0, T_0=15, T_mult=2),
    bs.CosineAnnealingWarmRestarts(1.0, T_0=20, decay=0.7),
    bs.WarmupScheduler(1.0, warmup_epochs=30),
    bs.WarmupCosineSchedule(1.0, warmup_steps=15, total_steps=95),
    bs.WSD(1.0, warmup_steps=15, stay_steps=50, decay_steps=30, decay_strategy="sqrt"),
    bs.WSD(1.0, warmup_steps=5, stay_steps=20, decay_steps=15, cycles=2),
    bs.CyclicLR(0.2, max_lr=1.0, step_size_up=12, mode="triangular2"),
    bs.OneCycleLR(1.0, total_steps=100),
    bs.LambdaLR(1.0, lr_lambda=lambda epoch: 1 / jnp.sqrt(1 + epoch / 5)),
    bs.SequentialLR([bs.WarmupScheduler(1.0, 20), bs.CosineAnnealingLR(1.0, 75)], [20]),
    bs.ChainedScheduler([bs.CyclicLR(0.5, 1.0, step_size_up=6), bs.ExponentialLR(1.0, 0.98)]),
    bs.PerUpdate(bs.WarmupCosineSchedule(1.0, 2, 10), steps_per_epoch=10),
    bs.Branch(bs.WSD(1.0, 10, 500, 100), at=60, length=35, end_lr=0.05, strategy="cos"),
    bs.Extension(bs.CosineAnnealingLR(1.0, T_max=60), at=40, end=60, new_end=95),
]

# A schedule that is not drawn above has its default arguments.
DRAWN = {"ReduceLROnPlateau", *(type(schedule).__name__ for schedule in SCHEDULES)}
OTHERS = [getattr(bs, name)(1.0) for name in bs.schedules.__all__ if name not in DRAWN]


def draw_plateau(ax: plt.Axes) -> None:
    """Draw the one schedule that needs a metric, for a loss that stalls twice."""
    scheduler = bs.ReduceLROnPlateau(1.0, factor=0.4, patience=8, cooldown=5)
    losses = [
        max(3 - 0.1 * epoch, 2 if epoch < 45 else 2 - 0.1 * (epoch - 45), 1)
        for epoch in range(EPOCHS)
    ]
    rates = []
    for loss in losses:
        rates.append(float(scheduler.get_last_lr()[0]))
        scheduler.step(loss)
    ax.step(range(EPOCHS), rates, where="post")
    ax.plot([loss / 3 for loss in losses], color="0.7", linewidth=0.8)
    ax.text(62, 0.42, "loss", color="0.5", fontsize=8)
    ax.set_title("ReduceLROnPlateau")


def draw(out: pathlib.Path) -> None:
    """Draw all schedules into one picture."""
    matplotlib.use("agg")
    drawn = [*SCHEDULES, *OTHERS]
    rows = 1 + len(drawn) // 4
    fig, axes = plt.subplots(
        rows, 4, figsize=(13, 2.4 * rows), sharex=True, sharey=True, layout="constrained"
    )
    for ax, scheduler in zip(axes.flat, drawn, strict=False):
        scheduler.plot(EPOCHS, ax=ax)
        for name, usual in (("decay", 1.0), ("cycles", 1)):
            value = getattr(scheduler, name, usual)
            if value != usual:
                ax.text(EPOCHS, 0.95, f"{name}={value}", ha="right", color="0.5", fontsize=8)
        ax.set_yscale("linear")  # one scale for all, to compare
    draw_plateau(axes.flat[len(drawn)])
    for ax in axes.flat:
        ax.set(xlabel="", ylabel="", ylim=(0, 1.05), xlim=(0, EPOCHS))
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes.flat[len(drawn) + 1 :]:
        ax.axis("off")
    for ax in axes.flat[len(drawn) - 3 : len(drawn) + 1]:  # the lowest of each column
        ax.tick_params(labelbottom=True)
    fig.supxlabel("epoch")
    fig.supylabel("learning rate")
    out.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(out, dpi=80)
    plt.close(fig)
    print(f"wrote {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    default = pathlib.Path(__file__).with_suffix(".png")
    parser.add_argument("--out", type=pathlib.Path, default=default)
    draw(parser.parse_args().out)
