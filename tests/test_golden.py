"""The analysis of real models as text: what was found in each, for a person to hold against its architecture.

A change of the analysis shows as a difference of these files. `ONNXCANON_UPDATE_GOLDEN=1 pytest
tests/test_golden.py` writes them anew; read what changed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import onnxcanon as oc
from onnxcanon.explaining.outline import outline
from onnxcanon.model import load
from tests.shared import MODELS, SHIPPED, TWINS, each, label

GOLDEN = Path(__file__).parent / "golden"
UPDATE = "ONNXCANON_UPDATE_GOLDEN" in os.environ
DIVERSE = (
    "blazeface-back-256",
    "cnn-mnist-tf2onnx-nhwc",
    "cnn-residual-block-batchnorm",
    "dtln-2-lstm",
    "fastestdet-shufflenetv2",
    "gpt2-tiny-ort-attention",
    "gpt2-tiny-pytorch14-raw",
    "gtcrn-stream-simplified-gru",
    "light-densenet121",
    "light-resnet50",
    "llama-tiny-fp16-external-data",
    "minilm-l6-torchscript-opset14",
    "mobilenet-v2-qdq-int8",
    "nnsplit-byte-bilstm",
    "ppocr-v4-rec",
    "rl-mlagents-sorter-attention",
    "silero-vad-v5-if",
    "smart-turn-v3-whisper-int8",
    "tf-bert-qa-tiny-keras2onnx",
    "ultraface-rfb-320",
)
CHOSEN = [path for path in MODELS if path.stem in DIVERSE]
PATHS = each(SHIPPED, CHOSEN, [folder / "base.onnx" for folder in TWINS])


def golden(path: Path) -> Path:
    """Where the text of a model lies."""
    return GOLDEN / f"{label(path).replace('/', '-')}.txt"


def test_diverse_models_are_all_there() -> None:
    assert not MODELS or {path.stem for path in CHOSEN} == set(DIVERSE)


@pytest.mark.parametrize("path", PATHS)
def test_outline_is_the_one_that_was_read(path: Path) -> None:
    told = outline(oc.analyze(load(path)))
    if UPDATE:
        GOLDEN.mkdir(exist_ok=True)
        golden(path).write_text(told, encoding="utf-8")
    assert told == golden(path).read_text(encoding="utf-8")
