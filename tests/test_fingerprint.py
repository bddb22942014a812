"""One name for all files of a model: it survives disguise and twins, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxcanon as oc
from onnxcanon.canonical.fingerprint import LEVELS
from onnxcanon.errors import ModelError
from tests import small_models
from tests.disguise import disguised
from tests.shared import MODELS, TWINS, models, truth

ROOT = Path(__file__).resolve().parent.parent
