"""Small random models, one with a tokenizer, and a golden machine that tests share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from host.accelerator import Accelerator
from host.commands.common import DEMO_MODEL
from sim_tests.harness.machines import golden_machine, small_design
from sim_tests.harness.models import TinyModel

TINY = TinyModel(max_positions=160, tied=False)
"""Two KV blocks, the second not whole."""


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    return TINY.write(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_image(tmp_path_factory, tiny_folder) -> Path:
    """The image of the tiny model for ``small_design()``; not to be changed."""
    folder = tmp_path_factory.mktemp("image") / "image"
    golden_machine(tiny_folder, small_design(), folder, 4 << 20)
    return folder


@pytest.fixture
def image(tmp_path, tiny_image) -> Path:
    """A copy of the image that a test may spoil."""
    return Path(shutil.copytree(tiny_image, tmp_path / "image"))


@pytest.fixture
def machine(tiny_image) -> Accelerator:
    from host.devices.golden import GoldenDevice
    return Accelerator(GoldenDevice(small_design(), 8 << 20), tiny_image)


@pytest.fixture(scope="session")
def speaking_model(tmp_path_factory) -> Path:
    """A random model with the demo model's tokenizer."""
    model = TinyModel(vocabulary=1024, max_positions=160, tied=False)
    folder = model.write(tmp_path_factory.mktemp("speaking") / "model")
    shutil.copy(DEMO_MODEL / "tokenizer.json", folder)
    return folder
