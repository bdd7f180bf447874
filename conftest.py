"""What holds for every test: shapes are checked at run time, and Hypothesis has no deadline."""

import hypothesis
import jax
import jaxtyping
import pytest

jaxtyping.install_import_hook("brainsched", "shape_checks.check_shapes")

# A first call traces and compiles, so that no example has a time limit of its own.
hypothesis.settings.register_profile("brainsched", deadline=None, max_examples=40, derandomize=True)
hypothesis.settings.load_profile("brainsched")


_compiled: list[str] = []


def _listen(event: str, duration: float, **kwargs: object) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _compiled.append(str(kwargs["fun_name"]))


jax.monitoring.register_event_duration_secs_listener(_listen)


@pytest.fixture
def compilations() -> list[str]:
    """List the names of the functions that XLA compiles from here on."""
    _compiled.clear()
    return _compiled
