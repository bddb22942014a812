"""Train and export the small example models under ``models/``.

Three architectures are trained on scikit-learn's bundled digits (1797 images of 8x8 pixels; nothing is
downloaded), each from two initializations on the same training images:

- ``digits_mlp_seed{0,1}.onnx``: an MLP 64-64-32-10 with ReLU;
- ``digits_resnet_seed{0,1}.onnx``: a residual CNN with BatchNorm, identity and projection shortcuts;
- ``digits_vit_seed{0,1}.onnx``: a small pre-LayerNorm vision transformer with a class token.

Beside them go ``digits_eval.npz`` (the held-out images) and ``digits_calib.npz`` (some training images),
both with arrays ``x`` and ``y``, and ``README.md`` with the table of sizes and accuracies. Accuracies are
measured with onnxruntime on the exported files. One thread and fixed seeds: the same library versions on
the same kind of processor give the same files. It takes a minute or two::

    pip install '.[examples]'
    python tools/train_examples.py

``--out DIR`` writes elsewhere.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

SEEDS = (0, 1)
OPSET = 18
EVAL_SIZE = 500
CALIB_SIZE = 400
SHIFT_CHANCE = 0.3
CLASSES = 10


# --- Architectures -------------------------------------------------------------------------------------


class Mlp(nn.Module):
    """64-64-32-10 with ReLU; the image is flattened inside the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 64)
        self.fc2 = nn.Linear(64, 32)
        self.fc3 = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images [N, 1, 8, 8]."""
        h = F.relu(self.fc1(x.flatten(1)))
        h = F.relu(self.fc2(h))
        out: Tensor = self.fc3(h)
        return out


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm; the shortcut is projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(branch(x) + shortcut(x))."""
        h = F.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        return F.relu(h + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, identity block, projection block with stride 2, identity block, mean pooling, classifier."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.block1 = ResidualBlock(width, width)
        self.block2 = ResidualBlock(width, 2 * width, stride=2)
        self.block3 = ResidualBlock(2 * width, 2 * width)
        self.fc = nn.Linear(2 * width, CLASSES)
        # From zero, the biases of the two BatchNorms that block2 adds would stay equal through training, and
        # the exporter would share one tensor between them.
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.bias, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images [N, 1, 8, 8]."""
        h = F.relu(self.bn(self.conv(x)))
        h = self.block3(self.block2(self.block1(h)))
        out: Tensor = self.fc(h.mean(dim=(2, 3)))
        return out


class Attention(nn.Module):
    """Multi-head self-attention with separate query, key and value projections."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """Return [N, tokens, width] as [N, heads, tokens, width per head]."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended tokens [N, tokens, width]."""
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        mixed = torch.softmax(scores, dim=-1) @ value
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class TransformerBlock(nn.Module):
    """Pre-LayerNorm attention and GELU MLP, each on a residual branch."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens after both branches."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return out


class VisionTransformer(nn.Module):
    """Sixteen 2x2 patches and a class token, learned positions, a classifier on the class token."""

    def __init__(self, width: int = 32, heads: int = 4, hidden: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images [N, 1, 8, 8]."""
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.class_token.expand(x.shape[0], -1, -1), h], dim=1) + self.positions
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.head(self.norm(h)[:, 0])
        return out


@dataclass(frozen=True)
class Recipe:
    """One architecture with its training and export settings."""

    name: str
    build: Callable[[], nn.Module]
    epochs: int
    rate: float
    # The current exporter's optimizer folds BatchNormalization into the convolution before it.
    keep_batchnorm: bool = False


RECIPES = (
    Recipe("mlp", Mlp, epochs=120, rate=1e-2),
    Recipe("resnet", ResNet, epochs=20, rate=1e-2, keep_batchnorm=True),
    Recipe("vit", VisionTransformer, epochs=80, rate=3e-3),
)


# --- Data ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Digits:
    """The training and held-out images [N, 1, 8, 8] in [0, 1], with their labels."""

    train_x: FloatArray
    train_y: IntArray
    eval_x: FloatArray
    eval_y: IntArray


def load() -> Digits:
    """Load the bundled digits and split them, stratified by label."""
    images, labels = load_digits(return_X_y=True)
    x = (images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    y = labels.astype(np.int64)
    train_x, eval_x, train_y, eval_y = train_test_split(x, y, test_size=EVAL_SIZE, random_state=0, stratify=y)
    return Digits(train_x, train_y, eval_x, eval_y)


def shifted(x: Tensor) -> Tensor:
    """Return the images, some of them moved by up to one pixel each way, zeros coming in at the border."""
    padded = F.pad(x, (1, 1, 1, 1))
    moved = torch.rand(len(x), 1) < SHIFT_CHANCE
    rows, columns = torch.where(moved, torch.randint(0, 3, (2, len(x), 1)), 1)
    span = torch.arange(x.shape[-1])
    image = torch.arange(len(x))[:, None, None]
    return padded[image, 0, (rows + span)[:, :, None], (columns + span)[:, None, :]][:, None]


# --- Training, export, evaluation ----------------------------------------------------------------------


def train(recipe: Recipe, seed: int, data: Digits) -> nn.Module:
    """Train one model from one initialization and return it in evaluation mode."""
    torch.manual_seed(seed)
    model = recipe.build()
    x, y = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    batch = 64
    steps = recipe.epochs * (len(x) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.rate, total_steps=steps)
    model.train()
    for _ in range(recipe.epochs):
        order = torch.randperm(len(x))
        for start in range(0, len(x) - batch + 1, batch):
            chosen = order[start : start + batch]
            loss = F.cross_entropy(model(shifted(x[chosen])), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def strip_metadata(graph: onnx.GraphProto) -> None:
    """Remove what the exporter notes beside the mathematics: source lines, documentation, names of passes."""
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    for items in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        for item in items:
            item.ClearField("metadata_props")
            item.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            if attribute.HasField("g"):
                strip_metadata(attribute.g)


def export(recipe: Recipe, model: nn.Module, path: Path) -> None:
    """Write one trained model as ONNX with a dynamic batch."""
    image = (torch.zeros(2, 1, 8, 8),)
    if recipe.keep_batchnorm:
        torch.onnx.export(
            model,
            image,
            path,
            input_names=["x"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamic_axes={"x": {0: "batch"}, "logits": {0: "batch"}},
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    else:
        torch.onnx.export(
            model,
            image,
            path,
            input_names=["x"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    proto = onnx.load(path)
    assert not proto.functions
    proto.ClearField("metadata_props")
    proto.ClearField("doc_string")
    strip_metadata(proto.graph)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def accuracy(path: Path, x: FloatArray, y: IntArray) -> float:
    """Return the share of images that onnxruntime classifies correctly with the file."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"x": x})
    return float(np.mean(np.argmax(logits, axis=1) == y))


README = """# Example models

Small trained models for trying the library and for its tests. They classify scikit-learn's bundled digits
(8x8 images). Each architecture was trained twice on the same images from different initializations.
Made by `tools/train_examples.py`; `pip install '.[examples]' && python tools/train_examples.py` makes them
again.

| File | Architecture | Parameters | Accuracy |
| --- | --- | ---: | ---: |
{rows}

- Every graph has one input `x`, float32 `[batch, 1, 8, 8]` with pixels in [0, 1], and one output `logits`,
  float32 `[batch, 10]`; opset {opset}. The batch is dynamic.
- Parameters are the trained ones; BatchNorm's running statistics are not counted.
- Accuracy is measured with onnxruntime on `digits_eval.npz`.
- The ResNet files keep their BatchNormalization nodes: nothing is folded into the convolutions.

| Data | Images | Arrays |
| --- | ---: | --- |
| `digits_eval.npz` | {eval_size} held out | `x` float32 `[N, 1, 8, 8]`, `y` int64 `[N]` |
| `digits_calib.npz` | {calib_size} of the training images | `x` float32 `[N, 1, 8, 8]`, `y` int64 `[N]` |

The images are those of the "Optical Recognition of Handwritten Digits" data set (E. Alpaydin and C. Kaynak,
UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0) as scikit-learn bundles them,
with the pixels divided by 16.
"""

ARCHITECTURES = {
    "mlp": "MLP 64-64-32-10, ReLU",
    "resnet": "residual CNN, BatchNorm, 3 blocks (identity, projection, identity)",
    "vit": "transformer, 2x2 patches, class token, pre-LayerNorm, 2 blocks, 4 heads, width 32, GELU",
}


def main() -> None:
    """Train, export and evaluate every example, and write the table."""
    parser = argparse.ArgumentParser(description="Train and export the example models.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "models")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for category in (DeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)

    data = load()
    np.savez_compressed(out / "digits_eval.npz", x=data.eval_x, y=data.eval_y)
    np.savez_compressed(out / "digits_calib.npz", x=data.train_x[:CALIB_SIZE], y=data.train_y[:CALIB_SIZE])

    rows = []
    for recipe in RECIPES:
        for seed in SEEDS:
            path = out / f"digits_{recipe.name}_seed{seed}.onnx"
            model = train(recipe, seed, data)
            export(recipe, model, path)
            parameters = sum(p.numel() for p in model.parameters())
            share = accuracy(path, data.eval_x, data.eval_y)
            print(f"{path.name}: {parameters} parameters, accuracy {share:.4f}")
            rows.append(f"| `{path.name}` | {ARCHITECTURES[recipe.name]} | {parameters} | {share:.4f} |")
    text = README.format(rows="\n".join(rows), opset=OPSET, eval_size=EVAL_SIZE, calib_size=CALIB_SIZE)
    (out / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
