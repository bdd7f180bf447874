"""Where :class:`LambdaLR` was in version 0.1.0."""

from brainsched.schedules.lambda_lr import LambdaLR

__all__ = ["LambdaLR"]
