"""A pytest plugin that puts the schedulers of brainsched in the place of braintools'."""

import braintools

import brainsched


def pytest_configure() -> None:
    for name in brainsched.schedules.__all__:
        if hasattr(braintools.optim, name):
            setattr(braintools.optim, name, getattr(brainsched, name))
