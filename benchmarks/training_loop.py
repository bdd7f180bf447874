"""What a schedule adds to each step of a compiled training loop, measured in turns.

    python benchmarks/training_loop.py

The difference is a few per cent of a step, less than a shared machine drifts from one minute to the
next: so the programs run in turns, and their medians are compared.
"""

import statistics
import time

import braintools
import jax
import jax.numpy as jnp
from bench_compiled import piecewise, training

STEPS = 2000


def main(rounds: int = 250) -> None:
    programs = {
        "constant rate": training(braintools.optim.ConstantLR(1e-3, 1.0, 0), step_scheduler=False),
        "brainsched": training(piecewise("brainsched")),
        "braintools": training(piecewise("braintools")),
    }
    epochs = jnp.arange(STEPS)
    times: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(rounds + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(epochs))
            if turn:  # the first one compiles
                times[name].append((time.perf_counter() - start) / STEPS * 1e6)
    medians = {name: statistics.median(values) for name, values in times.items()}
    constant = medians.pop("constant rate")
    print(f"a step at a constant rate: {constant:.2f} us")
    for name, median in medians.items():
        print(f"{name} adds {median - constant:.2f} us")


if __name__ == "__main__":
    main()
