"""Execute tutorials afresh, and store what comes out in their files.

    python integration_tests/tutorial_runs.py docs/tutorials/*.ipynb

A plain ``jupyter execute --inplace`` would store when each cell ran, and pictures cut to a size
that depends on the fonts: no two runs would be the same. The tests execute by the same function.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

# What a stored notebook says of itself, whoever executed it, in whichever Python.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
KERNEL_ARGUMENTS = [
    "--InlineBackend.print_figure_kwargs={'bbox_inches': None}",  # as large as the figure, uncut
    "--log-level=ERROR",  # ipykernel 7.4 logs that its sockets are not encrypted
]
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",  # the stored numbers are those of a CPU
    # Warnings are errors, as in all tests, but for two that the kernel itself has: of
    # matplotlib-inline 0.2.2 at the argument above, and of ipykernel 7.4 when it ends.
    "PYTHONWARNINGS": "error,ignore:InlineBackend._:DeprecationWarning,"
    "ignore:For consistency across implementations:PendingDeprecationWarning",
}


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Return a notebook with new outputs, after running it in a folder of its own.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell raises or warns.
    """
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    client = nbclient.NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=300,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=KERNEL_ARGUMENTS,
        resources={"metadata": {"path": folder}},
    )
    client.execute(env=os.environ | ENVIRONMENT)
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as empty:
            nbformat.write(execute(Path(name), Path(empty)), name)
