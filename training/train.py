"""Teach the whole model to answer; start it from the vision part that `train_vision` made, or from a checkpoint.

    python -m training.train_vision --out runs/vision.pt
    python -m training.train --vision runs/vision.pt --out runs/first.pt --minutes 180
    python -m training.train --resume runs/grown.pt --freeze-vision --out runs/more.pt --minutes 80

Pictures never repeat, so the accuracies printed while training are those on pictures not seen before. An answer counts
only if every token of it is the likeliest one: then greedy decoding writes exactly this answer.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections import defaultdict, deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
import torch.multiprocessing
import torch.nn.functional as F
from torch import Tensor, nn

from training.feed import Feed
from training.lessons import Lessons, demo_tokenizer
from training.muon import Muon
from training.network import DemoModel, TextShape, VisionShape
from training.text_heads import PictureHead, TargetHead
from training.tokenizer import Tokenizer
from training.train_vision import PatchHeads, TokenHeads, dense_loss, normalise

if TYPE_CHECKING:
    from training.packing import Batch

EMA_DECAY = 0.995
# The layers of the text part, from its end, after which the thing asked about is to be known.
TARGETS_AFTER = (-2, -1)


def as_float(logits: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Logits in float32, in which losses are computed."""
    return tuple(part.float() for part in logits)


def attention_mask(branch: Tensor) -> Tensor:
    """What is added to the scores [batch, 1, tokens, tokens]: 0 for earlier tokens of the beginning or own branch."""
    tokens = branch.shape[1]
    earlier = torch.ones(tokens, tokens, dtype=torch.bool, device=branch.device).tril()
    same = (branch[:, None, :] == branch[:, :, None]) | (branch[:, None, :] == 0)
    return torch.zeros(same.shape).masked_fill_(~(earlier & same), -1e4)[:, None]


class Trainer:
    """The model, its training-only heads, optimisers and running averages.

    Args:
        tokenizer: the model's.
        lr: peak rate of the text part.
        vision_lr: peak rate of the vision part.
        layers: of the text part.
        dtype: in which Muon computes.
    """

    def __init__(
        self, tokenizer: Tokenizer, lr: float, vision_lr: float, layers: int = 3, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        self.tokenizer = tokenizer
        self.vision, self.text = VisionShape(), TextShape(vocab_size=tokenizer.size, num_hidden_layers=layers)
        self.net = DemoModel(self.vision, self.text)
        self.patch_heads = PatchHeads(self.vision.hidden_size)
        self.token_heads = TokenHeads(self.text.hidden_size, self.vision.side)
        self.picture_head = PictureHead(self.text.hidden_size)
        self.target_heads = nn.ModuleList(TargetHead(self.text.hidden_size) for _ in TARGETS_AFTER)
        self.average = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.context, self.image = tokenizer.special("<IMG_CONTEXT>"), tokenizer.special("<img>")
        self.apart = 0.0  # how many visual tokens of the last batch knew their picture
        groups: dict[tuple[str, float], list[nn.Parameter]] = defaultdict(list)
        for name, parameter in self.net.named_parameters():
            own = vision_lr if "vision_tower" in name else lr
            inside = parameter.ndim == 2 and ("layer" in name or "linear" in name) and "norm" not in name
            if "patch_embeddings" in name:
                groups["adamw", 0.06 * own].append(parameter)
            else:
                groups["muon" if inside else "adamw", own if inside else 0.6 * own].append(parameter)
        heads = (self.patch_heads, self.token_heads, self.picture_head, self.target_heads)
        groups["adamw", 0.6 * lr] += [parameter for head in heads for parameter in head.parameters()]
        self.parameters = [parameter for group in groups.values() for parameter in group]
        self.peaks = [rate for _, rate in groups]
        self.optimisers = [
            Muon(group, lr=rate, dtype=dtype)
            if kind == "muon"
            else torch.optim.AdamW(group, lr=rate, betas=(0.9, 0.98), weight_decay=0.02, fused=True)
            for (kind, rate), group in groups.items()
        ]

    def save(self, path: Path, step: int) -> None:
        """Write a checkpoint that `load` and `evaluate` read."""
        state = {
            "net": self.net.state_dict(), "average": self.average, "patch_heads": self.patch_heads.state_dict(),
            "token_heads": self.token_heads.state_dict(), "picture_head": self.picture_head.state_dict(),
            "target_heads": self.target_heads.state_dict(),
            "merges": self.tokenizer.merges, "size": self.tokenizer.size,
            "early": self.tokenizer.early, "layers": self.text.num_hidden_layers, "step": step,
        }  # fmt: skip
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def load(self, state: dict[str, Any]) -> None:
        """Take weights and averages from a checkpoint."""
        self.net.load_state_dict(state["net"])
        self.average = {name: value.clone() for name, value in state["average"].items()}
        if "token_heads" in state:  # the files of an embedded model have none
            self.patch_heads.load_state_dict(state["patch_heads"])
            self.token_heads.load_state_dict(state["token_heads"])
        if "picture_head" in state:
            self.picture_head.load_state_dict(state["picture_head"])
        if "target_heads" in state:
            self.target_heads.load_state_dict(state["target_heads"])

    def take_vision(self, state: dict[str, Any]) -> None:
        """Take the vision tower from `train_vision`'s checkpoint."""
        self.net.model.vision_tower.load_state_dict(state["tower"])
        self.patch_heads.load_state_dict(state["heads"])
        for name, value in state["tower"].items():
            self.average[f"model.vision_tower.{name}"] = value.clone()

    def take_seeing(self, state: dict[str, Any]) -> None:
        """Take vision tower, projector and heads from a checkpoint of the whole model."""
        own = self.net.state_dict()
        for name, value in state["average"].items():
            if "vision_tower" in name or "multi_modal_projector" in name:
                own[name].copy_(value)
                self.average[name].copy_(value)
        self.patch_heads.load_state_dict(state["patch_heads"])
        self.token_heads.load_state_dict(state["token_heads"])

    def loss(self, batch: Batch, dense: float, train_vision: bool) -> tuple[Tensor, dict[str, list[bool]]]:
        """The loss of a batch, and for each kind of question which answers were right to the last token.

        With `dense` 0 nothing but the answers is asked for.
        """
        ids, visual, extra = torch.from_numpy(batch.ids), None, torch.zeros(())
        if batch.tiles is not None:
            pixels = normalise(torch.from_numpy(batch.tiles))
            with torch.set_grad_enabled(train_vision):
                features = self.net.model.vision_tower(pixels)
            visual = self.net.model.multi_modal_projector(features).float()
            if dense and batch.labels is not None:
                labels = torch.from_numpy(batch.labels)
                extra = dense * dense_loss(as_float(self.token_heads(visual)), labels)[0]
                if train_vision:
                    extra = extra + dense * dense_loss(as_float(self.patch_heads(features)), labels)[0]
        mask = attention_mask(torch.from_numpy(batch.branch))
        answer = torch.from_numpy(batch.answer)
        rows, columns = answer.nonzero(as_tuple=True)
        answering = answer > 0
        most = int(answering.sum(1).max())
        where = answering.int().argsort(dim=1, descending=True, stable=True)[:, :most]
        hidden = self.net.hidden(ids, visual, self.context, mask, torch.from_numpy(batch.positions), where)
        inner_outcome: dict[str, list[bool]] = {}
        if dense:
            told, inner_outcome = self._inner_loss(batch, ids)
            extra = extra + told
        logits = self.net.lm_head(hidden[torch.take_along_dim(answering, where, 1)]).float()
        wanted = ids[rows, columns + 1]
        right = (logits.argmax(1) == wanted).tolist()
        whole: dict[tuple[int, int], bool] = {}
        for row, index, token_right in zip(rows.tolist(), answer[rows, columns].tolist(), right, strict=True):
            whole[row, index] = whole.get((row, index), True) and token_right
        outcome: dict[str, list[bool]] = defaultdict(list, inner_outcome)
        for (row, index), good in whole.items():
            outcome[batch.kinds[row][index - 1]].append(good)
        number = answer[rows, columns]
        lengths = torch.zeros(len(ids), int(answer.max()) + 1).index_put(
            (rows, number), torch.ones(()), accumulate=True
        )
        weight = lengths[rows, number].rsqrt()  # a long description must not drown the one-word answers
        loss = (F.cross_entropy(logits, wanted, reduction="none") * weight).sum() / weight.sum()
        return loss + extra, outcome

    def _inner_loss(self, batch: Batch, ids: Tensor) -> tuple[Tensor, dict[str, list[bool]]]:
        """The loss of what hidden states are to know halfway: a visual token its picture, a question its thing."""
        inner, loss = self.net.model.language_model.inner, torch.zeros(())
        outcome: dict[str, list[bool]] = {}
        several = (ids == self.image).sum(1) > 1
        if several.any():
            branch = torch.from_numpy(batch.branch)
            told, self.apart = self.picture_head.loss(inner[len(inner) // 2], ids, branch, self.image, self.context)
            loss = loss + 0.5 * told
        if len(batch.targets):
            targets = torch.from_numpy(batch.targets)
            for head, layer in zip(self.target_heads, TARGETS_AFTER, strict=True):
                told, outcome = head.loss(inner[layer], targets, several)
                loss = loss + 0.2 * told
        return loss, outcome

    def share(self, progress: float) -> float:
        """Add up the gradients of all processes; returns the first one's progress, so that all end together."""
        trained = [parameter for parameter in self.parameters if parameter.requires_grad]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        own = torch.tensor([progress if torch.distributed.get_rank() == 0 else 0.0])
        flat = torch.cat([part.flatten() for part in (*parts, own)])
        torch.distributed.all_reduce(flat)
        for parameter, part in zip(trained, flat[:-1].split([p.numel() for p in trained]), strict=True):
            parameter.grad = part.view_as(parameter)
        return float(flat[-1])

    def step(self, rate: float, number: int) -> None:
        """Update the weights from their gradients, at `rate` times the peak rates.

        The averages of the first steps, counted from 0, forget faster, so that those of a short run are of its end.
        """
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser, peak in zip(self.optimisers, self.peaks, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = peak * rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                self.average[name].lerp_(value, 1 - min(EMA_DECAY, (number + 1) / (number + 10)))


def schedule(progress: float, hold: float, final: float) -> float:
    """Rate over its peak: full for the part `hold` of the time, then falling to `final` along a cosine."""
    fallen = min(1.0, max(0.0, (progress - hold) / (1 - hold)))
    return final + (1 - final) * (0.5 + 0.5 * math.cos(math.pi * fallen))


def lessons_of(trainer: Trainer, args: argparse.Namespace) -> tuple[Lessons, Lessons]:
    """What draws the two batches of a step: one of pictures and one of the other kinds."""
    lessons = Lessons(trainer.tokenizer, trainer.vision.image_size, trainer.vision.side, args.tokens, args.room)
    named = (part.split("=") for part in args.others.split(","))
    shares = tuple((kind, float(share)) for kind, share in named) if args.others else lessons.shares[1:]
    return replace(lessons, shares=lessons.shares[:1]), replace(lessons, shares=shares)


def run(trainer: Trainer, args: argparse.Namespace, rank: int) -> None:
    """Train for the asked time; print loss, speed and accuracies; leave checkpoints.

    A step has two batches. Of two processes each computes one of them.
    """
    first, second = lessons_of(trainer, args)
    feeds = [Feed(first, args.seed, args.workers), Feed(second, args.seed + 500, args.workers)]
    own = feeds[rank :: args.processes]
    begun, step, progress, mean, tokens = time.time(), 0, 0.0, 0.0, 0
    score: dict[str, deque[bool]] = defaultdict(lambda: deque(maxlen=400))
    while progress < 1:
        for feed in own:
            batch = feed.next()
            with torch.autocast("cpu", torch.bfloat16, enabled=not args.float32):
                loss, outcome = trainer.loss(batch, args.dense, not args.freeze_vision)
            (loss / len(feeds)).backward()
            mean += 0.01 * (float(loss.detach()) - mean)
            tokens += batch.ids.size
            for kind, answers in outcome.items():
                score[kind].extend(answers)
        progress = (time.time() - begun) / 60 / args.minutes
        if args.processes > 1:
            progress = trainer.share(progress)
        trainer.step(min(1.0, (step + 1) / 40) * schedule(progress, args.hold, args.final), step)
        step += 1
        if step % 25 == 0:
            told = " ".join(f"{kind} {100 * sum(got) / len(got):.0f}" for kind, got in sorted(score.items()) if got)
            speed = tokens / (time.time() - begun)
            print(
                f"{time.strftime('%H:%M:%S')} {100 * progress:.0f}% step {step} loss {mean:.3f} {speed:.0f} tokens/s "
                f"pictures apart {100 * trainer.apart:.0f} | {told}",
                flush=True,
            )
        if rank == 0 and (step % 100 == 0 or progress >= 1):
            trainer.save(args.out, step)
    for feed in feeds:
        feed.close()


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vision", type=Path, help="vision part to start from (train_vision's --out)")
    parser.add_argument("--resume", type=Path, help="checkpoint to go on from")
    parser.add_argument("--seen-by", type=Path, help="checkpoint whose vision part and projector to take")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--minutes", type=float, default=30, help="the schedule follows the clock")
    parser.add_argument("--tokens", type=int, default=2400, help="tokens of a batch; a step has two")
    parser.add_argument("--room", type=int, default=260, help="tokens of the conversations about one picture")
    parser.add_argument("--others", default="", help='shares of the batches beside pictures: "album=0.3,tools=0.1"')
    parser.add_argument("--hold", type=float, default=0.33, help="part of the time at the full rate")
    parser.add_argument("--dense", type=float, default=0.1, help="weight of the dense targets; 0 for answers only")
    parser.add_argument("--freeze-vision", action="store_true")
    parser.add_argument("--freeze-projector", action="store_true")
    parser.add_argument("--float32", action="store_true", help="for CPUs whose bfloat16 is the slower")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--vision-lr", type=float, default=8e-4)
    parser.add_argument("--final", type=float, default=0.05, help="rate at the end, as a part of the peak")
    parser.add_argument("--workers", type=int, default=0, help="drawing processes for each of two feeds")
    parser.add_argument("--processes", type=int, default=1, choices=(1, 2), help="that share the batches of a step")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.processes == 1:
        train(0, args)
    else:
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(train, (args, f"{folder}/meeting"), args.processes)


def train(rank: int, args: argparse.Namespace, meeting: str = "") -> None:
    """One process of the training; with several, they meet at a file of the name `meeting`."""
    torch.set_num_threads(1)
    if meeting:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=args.processes
        )
    torch.manual_seed(args.seed)
    state = torch.load(args.resume, weights_only=True) if args.resume else None
    if state:
        tokenizer = Tokenizer(tuple(map(tuple, state["merges"])), state["size"], state.get("early"))
    else:
        tokenizer = demo_tokenizer()
    layers = state["layers"] if state else TextShape.num_hidden_layers
    trainer = Trainer(tokenizer, args.lr, args.vision_lr, layers, torch.float32 if args.float32 else torch.bfloat16)
    if state:
        trainer.load(state)
    if args.vision:
        trainer.take_vision(torch.load(args.vision, weights_only=True))
    if args.seen_by:
        trainer.take_seeing(torch.load(args.seen_by, weights_only=True))
    trainer.net.model.multi_modal_projector.requires_grad_(not args.freeze_projector)
    for frozen in (trainer.net.model.vision_tower, trainer.patch_heads):
        frozen.requires_grad_(not args.freeze_vision)
    run(trainer, args, rank)


if __name__ == "__main__":
    main()
