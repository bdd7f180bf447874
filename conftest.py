"""What holds for every test: shapes are checked at run time, and Hypothesis has no deadline."""

import hypothesis
import jaxtyping

jaxtyping.install_import_hook("brainsched", "shape_checks.check_shapes")

# A first call traces and compiles, so that no example has a time limit of its own.
hypothesis.settings.register_profile("brainsched", deadline=None, max_examples=40, derandomize=True)
hypothesis.settings.load_profile("brainsched")
