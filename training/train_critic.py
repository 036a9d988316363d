"""Train a critic's layers above the demo's frozen ones, on what `training.critic_residuals` computed.

    python -m training.train_critic runs/shipped.pt runs/residuals --out runs/critic.pt --minutes 30

Cases of the first rows are held out: after each part of the training it is told how often a right answer's verdict is
above a wrong one's to the same question, beside the same of what the demo knew when it wrote them.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.checkpoint import model_of
from training.critic import RIGHT, WRONG
from training.critic_layers import CriticLayers
from training.critic_residuals import least_likely, row_mask
from training.critic_start import look_back
from training.muon import Muon
from training.train import schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from training.tokenizer import Tokenizer

Row = dict[str, Any]
HELD_OUT, AT_ONCE = 150, 10
"""Rows that are not learned, and how many of them are judged at once."""
STARTED_FROM = 200
EMA_DECAY = 0.995


@dataclass(frozen=True)
class RowBatch:
    """Rows, padded on the right. The names are those of `critic.JudgedRow`; `told` marks ends that are no padding."""

    residual: Tensor
    mask: Tensor
    positions: Tensor
    ends: Tensor
    told: Tensor
    right: Tensor
    asked: Tensor
    answering: Tensor
    log_prob: Tensor
    truth: Tensor


def batch_of(rows: list[Row]) -> RowBatch:
    """Put rows together. Questions are numbered through all of them."""

    def padded(name: str, fill: float) -> Tensor:
        return nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True, padding_value=fill)

    first, asked = 0, []
    for row in rows:
        asked.append(row["asked"] + first)
        first += len(row["kinds"])
    positions = padded("positions", 0)
    mask = row_mask(padded("branch", -1), padded("stem", -1), padded("parent", -1), positions)
    told = nn.utils.rnn.pad_sequence([torch.ones_like(row["ends"]) for row in rows], batch_first=True) > 0
    return RowBatch(
        padded("residual", 0).float(), mask, positions,
        padded("ends", 0), told, torch.cat([row["right"] for row in rows]), torch.cat(asked),
        padded("before", -1) >= 0, padded("log_prob", 0), padded("truth", -1),
    )  # fmt: skip


def pair_gaps(scores: Tensor, right: Tensor, asked: Tensor) -> Tensor:
    """By how much a right answer's score is above a wrong one's, for each such pair of a question: [pairs]."""
    pairs = right[:, None] & ~right[None] & (asked[:, None] == asked[None])
    return (scores[:, None] - scores[None])[pairs]


def loss_of(critic: CriticLayers, batch: RowBatch) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch, and its parts."""
    verdicts, inner = critic(batch.residual, batch.mask, batch.positions, batch.ends)
    scores = verdicts[batch.told]
    parts = {
        "verdict": F.binary_cross_entropy_with_logits(scores, batch.right.float()),
        "order": F.softplus(-pair_gaps(scores, batch.right, batch.asked)).mean(),
    }
    loss = parts["verdict"] + parts["order"]
    known = batch.answering
    for number, (head, hidden) in enumerate(zip(critic.heads, inner, strict=True)):
        likely, first = head.loss(hidden[known], batch.log_prob[known], batch.truth[known])
        parts |= {f"likely{number}": likely, f"first{number}": first}
        loss = loss + 0.3 * likely + 0.3 * first
    return loss, {name: float(part.detach()) for name, part in parts.items()}


def batches(rows: list[Row], tokens: int, rng: Random) -> Iterator[list[Row]]:
    """Endlessly rows of about one length, about so many tokens together, each once before one comes again."""
    while True:
        order = sorted(rows, key=lambda row: len(row["positions"]) * rng.uniform(0.9, 1.1))
        groups: list[list[Row]] = [[]]
        longest = 0
        for row in order:
            longest = max(longest, len(row["positions"]))
            if groups[-1] and longest * (len(groups[-1]) + 1) > tokens:
                groups.append([])
                longest = len(row["positions"])
            groups[-1].append(row)
        rng.shuffle(groups)
        yield from groups


@torch.no_grad()
def verdicts(critic: CriticLayers, rows: list[Row]) -> list[Tensor]:
    """The verdicts on the answers of each row."""
    found: list[Tensor] = []
    for first in range(0, len(rows), AT_ONCE):
        group = rows[first : first + AT_ONCE]
        batch = batch_of(group)
        told = critic(batch.residual, batch.mask, batch.positions, batch.ends)[0]
        found += [own[: len(row["ends"])] for own, row in zip(told, group, strict=True)]
    return found


def in_order(rows: list[Row], scores: list[Tensor]) -> dict[str, float]:
    """For each kind of question, and for all, the part of its pairs in which the right answer has the higher score."""
    won: dict[str, list[float]] = defaultdict(list)
    for row, told in zip(rows, scores, strict=True):
        for number, kind in enumerate(row["kinds"]):
            own = row["asked"] == number
            gaps = pair_gaps(told[own], row["right"][own], row["asked"][own])
            won[kind] += ((gaps > 0).float() + 0.5 * (gaps == 0).float()).tolist()
            won["all"] += won[kind][len(won[kind]) - len(gaps) :]
    return {kind: sum(found) / len(found) for kind, found in won.items() if found}


class Training:
    """The layers, their average, and what steps them."""

    def __init__(self, critic: CriticLayers, lr: float) -> None:
        self.critic, self.lr = critic, lr
        self.average = {name: value.clone() for name, value in critic.state_dict().items()}
        matrices = [parameter for parameter in critic.layers.parameters() if parameter.ndim == 2]
        others = [p for p in critic.parameters() if all(p is not matrix for matrix in matrices)]
        self.optimisers = [
            Muon(matrices, lr=lr, dtype=torch.float32), torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98))
        ]  # fmt: skip

    def step(self, rate: float, number: int) -> None:
        """Update the weights at `rate` times the peak rate; averages of the first steps forget faster."""
        nn.utils.clip_grad_norm_(self.critic.parameters(), 1.0)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.lr * rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, value in self.critic.state_dict().items():
                self.average[name].lerp_(value, 1 - min(EMA_DECAY, (number + 1) / (number + 10)))

    def averaged(self, use: Callable[[], Any]) -> Any:
        """What `use` returns while the layers have their averaged weights."""
        own = {name: value.clone() for name, value in self.critic.state_dict().items()}
        self.critic.load_state_dict(self.average)
        try:
            return use()
        finally:
            self.critic.load_state_dict(own)


def save(path: Path, state: dict[str, Any], critic: CriticLayers) -> None:
    """Write the critic's checkpoint: the demo's with more layers, its output being its embeddings."""
    net = {**state["average"], **critic.weights(state["layers"])}
    net["lm_head.weight"] = net["model.language_model.embed_tokens.weight"]
    torch.save({**state, "net": net, "average": net, "layers": state["layers"] + len(critic.layers)}, path)


def verdict_direction(state: dict[str, Any], tokenizer: Tokenizer) -> Tensor:
    """The embedding of the token that says right, less that of the one that says wrong [width]."""
    (right,), (wrong,) = tokenizer.encode(RIGHT), tokenizer.encode(WRONG)
    embeddings: Tensor = state["average"]["model.language_model.embed_tokens.weight"]
    return embeddings[right] - embeddings[wrong]


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="the demo's")
    parser.add_argument("residuals", type=Path, help="folder of what training.critic_residuals wrote")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--minutes", type=float, default=30, help="of processor time, which the schedule follows")
    parser.add_argument("--resume", type=Path, help="a critic's checkpoint to go on from")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=2400, help="tokens of a batch")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    state = torch.load(args.checkpoint, weights_only=True)
    rows = [row for path in sorted(args.residuals.glob("*.pt")) for row in torch.load(path, weights_only=True)]
    held_out, taught = sorted(rows[:HELD_OUT], key=lambda row: len(row["positions"])), rows[HELD_OUT:]
    demo, tokenizer = model_of(state)
    scale = float(torch.cat([row["residual"] for row in held_out]).float().square().mean().sqrt())
    critic = CriticLayers(demo.text_shape, verdict_direction(state, tokenizer), args.layers, scale)
    look_back(critic.layers[0], demo.text_shape, demo, taught[:STARTED_FROM])
    if args.resume:
        critic.take(torch.load(args.resume, weights_only=True)["average"], state["layers"])
    training = Training(critic, args.lr)
    known = in_order(held_out, [least_likely(row["log_prob"], row["branch"], row["ends"]) for row in held_out])
    print(f"{len(taught)} rows, scale {scale:.2f}; by the least likely token: {shown(known)}", flush=True)
    run(training, taught, held_out, args)
    training.averaged(lambda: save(args.out, state, training.critic))


def run(training: Training, taught: list[Row], held_out: list[Row], args: argparse.Namespace) -> None:
    """Train for the asked time; print losses and what the held-out rows say."""
    critic, begun, last, means = training.critic, time.process_time(), 0.0, defaultdict[str, float](float)
    for number, group in enumerate(batches(taught, args.tokens, Random(args.seed))):
        progress = (time.process_time() - begun) / 60 / args.minutes
        loss, parts = loss_of(critic, batch_of(group))
        loss.backward()
        training.step(min(1.0, (number + 1) / 100) * schedule(min(progress, 1.0), 0.3, 0.02), number)
        for name, part in parts.items():
            means[name] += max(0.01, 1 / (number + 1)) * (part - means[name])
        if progress >= last + 0.05 or progress >= 1:
            last = progress
            found = training.averaged(lambda: in_order(held_out, verdicts(critic, held_out)))
            losses = " ".join(f"{name} {mean:.3f}" for name, mean in means.items())
            print(f"{100 * progress:.0f}% step {number + 1} {losses} | {shown(found)}", flush=True)
        if progress >= 1:
            return


def shown(parts: dict[str, float]) -> str:
    """Parts in percent, by name."""
    return " ".join(f"{name} {100 * part:.1f}" for name, part in sorted(parts.items()))


if __name__ == "__main__":
    main()
