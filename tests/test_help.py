"""What ``help(brainsched.StepLR)`` opens with, and an editor shows of the call."""

import inspect
import pydoc
import re

import pytest

import brainsched


def test_help_opens_with_the_call_and_a_sentence():
    text = pydoc.plain(pydoc.render_doc(brainsched.StepLR))
    # Python 3.13 breaks a long call into lines.
    call = (
        "StepLR(base_lr=0.001,step_size=30,gamma=0.1,last_epoch=0,*,eta_min=0.0,eta_min_ratio=None"
    )
    assert call in re.sub(r"[\s|]", "", text)[:400]
    assert " |  A rate that is multiplied by ``gamma`` every ``step_size`` epochs." in text


@pytest.mark.parametrize("name", brainsched.__all__)
def test_every_public_name_opens_with_a_sentence_on_one_line(name):
    documented = inspect.getdoc(getattr(brainsched, name)) or ""
    first, _, rest = documented.partition("\n")
    assert first.endswith(".")
    assert not rest or rest.startswith("\n")
