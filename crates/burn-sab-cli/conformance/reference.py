#!/usr/bin/env python3
"""SAB-LSTM in plain PyTorch, and the conformance cases computed with it.

    python reference.py OUT_DIR                        write the cases that ship with burn-sab
    python reference.py OUT_DIR --random 50 --seed 7   write 50 random cases instead

Written from the book's chapter "The algorithm" alone and shares no code with the Rust crates. The
gradients are autograd's. Everything is float64 and slow. The only requirement is `pip install torch`.
The chapter "The command" describes the file format.
"""

import argparse
import dataclasses
import json
import math
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

EPSILON = 1e-7

# A case is redrawn until both hold, so that single precision can pass it too.
SMALLEST_GAP = 1e-4  # between scores at the edge of the selection: rounding cannot change who is selected
LARGEST_ERROR = 3e-6  # of the same computation in float32; the bound of `sab conformance` is 1e-4
DRAWS = 5_000
DRAWS_OF_RANDOM_SETTINGS = 20

Tensors = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Settings:
    score: str
    sparsifier: str
    k_top: int
    k_att: int = 1
    k_trunc: int = 3
    truncation_offset: int = 0
    initial_slot: str = "none"
    max_hops: int | None = None
    summary_scale: float = 1.0
    learned_gain: bool = False
    detach_scores: bool = False

    def metadata(self) -> dict[str, str]:
        # A switch that is off is left out: files from before there were switches stay as they were.
        values = {name: v for name, v in dataclasses.asdict(self).items() if v is not False}
        words = {None: "none", True: "true"}
        return {name: words[v] if v is None or v is True else str(v) for name, v in values.items()}


@dataclasses.dataclass(frozen=True)
class Sizes:
    batch: int
    time: int
    input: int
    hidden: int
    attention: int


# --- Scores: query [B, H] and memory [B, M, H] give [B, M] -------------------------------------------


def additive_scores(given: Tensors, query: Tensor, memory: Tensor) -> Tensor:
    of_query = query.tanh() @ given["score.u"]
    of_slots = memory.tanh() @ given["score.v"]
    return of_query[:, None] + of_slots


def mlp_scores(given: Tensors, query: Tensor, memory: Tensor) -> Tensor:
    query = query @ given["score.query"].T + given["score.query_bias"]
    keys = memory @ given["score.memory"].T
    return (query[:, None, :] + keys).tanh() @ given["score.v"]


def dot_scores(given: Tensors, query: Tensor, memory: Tensor) -> Tensor:
    query = query @ given["score.query"].T
    keys = memory @ given["score.key"].T
    return (keys @ query[:, :, None]).squeeze(2) / math.sqrt(query.shape[1])


SCORES = {"additive": additive_scores, "mlp": mlp_scores, "dot": dot_scores}


# --- Sparsifiers: scores [B, M] give weights [B, M] --------------------------------------------------


def best_first(scores: Tensor) -> Tensor:
    """The slots in falling order of their scores; of equal scores the older slot comes first."""
    return scores.detach().sort(dim=1, descending=True, stable=True).indices


def ranked_score(scores: Tensor, rank: int) -> Tensor:
    """The score at this rank, [B, 1]; 1 is the largest. It carries gradient like any score."""
    return scores.gather(1, best_first(scores)[:, rank - 1 : rank])


def above(scores: Tensor, delta: Tensor) -> Tensor:
    excess = (scores - delta).relu()
    return excess / (excess.sum(1, keepdim=True) + EPSILON)


def threshold(scores: Tensor, k_top: int) -> Tensor:
    slots = scores.shape[1]
    if slots <= k_top:
        return above(scores, ranked_score(scores, slots) - 1)
    return above(scores, ranked_score(scores, k_top + 1))


def released(scores: Tensor, k_top: int) -> Tensor:
    if scores.shape[1] <= k_top:
        return scores
    return above(scores, ranked_score(scores, k_top) + EPSILON)


def softmax(scores: Tensor, k_top: int) -> Tensor:
    selected = best_first(scores)[:, :k_top]
    weights = scores.gather(1, selected).softmax(1)
    return torch.zeros_like(scores).scatter(1, selected, weights)


SPARSIFIERS = {"threshold": threshold, "released": released, "softmax": softmax}


# --- The sequence ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Pass:
    """What one pass over time computes."""

    hidden: list[Tensor] = dataclasses.field(default_factory=list)  # h_t
    summaries: list[Tensor] = dataclasses.field(default_factory=list)  # s_t
    scores: list[Tensor] = dataclasses.field(default_factory=list)  # a_t, over the slots of step t
    weights: list[Tensor] = dataclasses.field(default_factory=list)  # w_t, over the slots of step t
    slots: list[Tensor] = dataclasses.field(default_factory=list)  # m_j
    cell: Tensor | None = None  # c_T


def window_starts(settings: Settings, t: int) -> bool:
    if t == 0 and settings.truncation_offset == 0:
        return False
    return (t + settings.truncation_offset) % settings.k_trunc == 0


def lstm_cell(given: Tensors, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    gates = x @ given["w.ih"].T + given["b.ih"] + h @ given["w.hh"].T + given["b.hh"]
    i, f, g, o = gates.chunk(4, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def pass_over_time(settings: Settings, given: Tensors, source: list[Tensor] | None = None) -> Pass:
    """Steps 1 to 6 for every t. Slots are retrieved from `source` where it is given, and from the
    pass itself otherwise."""
    score, sparsify = SCORES[settings.score], SPARSIFIERS[settings.sparsifier]
    gain = given["summary_gain"] if settings.learned_gain else settings.summary_scale
    h, c = given["in.h0"], given["in.c0"]
    done = Pass()
    if settings.initial_slot == "hidden":
        done.slots.append(h)
    for t, x in enumerate(given["in.x"].unbind(1)):
        if window_starts(settings, t):
            h, c = h.detach(), c.detach()
        provisional, c = lstm_cell(given, x, h, c)
        scores = weights = provisional.new_zeros(len(x), 0)
        summary = torch.zeros_like(provisional)
        if done.slots:
            memory = torch.stack((source or done.slots)[: len(done.slots)], dim=1)
            if settings.detach_scores:
                scores = score(given, provisional.detach(), memory.detach())
            else:
                scores = score(given, provisional, memory)
            weights = sparsify(scores, settings.k_top)
            summary = (weights[:, :, None] * memory).sum(1)
        h = provisional + gain * summary
        if (t + 1) % settings.k_att == 0:
            done.slots.append(h)
        done.hidden.append(h)
        done.summaries.append(summary)
        done.scores.append(scores)
        done.weights.append(weights)
    done.cell = c
    return done


def sab_lstm(settings: Settings, given: Tensors) -> Pass:
    """With `max_hops` D there are D + 1 passes. Each retrieves the slots of the pass before it, and the
    first retrieves constants, so every path of at most D reminders exists once."""
    done = pass_over_time(settings, given)
    if settings.max_hops is None:
        return done
    # The initial slot is an input and not a moment of this sequence: it is no constant.
    inputs = 1 if settings.initial_slot == "hidden" else 0
    source = done.slots[:inputs] + [slot.detach() for slot in done.slots[inputs:]]
    for _ in range(settings.max_hops + 1):
        done = pass_over_time(settings, given, source)
        source = done.slots
    return done


# --- Cases -------------------------------------------------------------------------------------------


def solve(settings: Settings, given: Tensors) -> tuple[Tensors, Pass]:
    """The outputs and gradients to expect, and the pass that gave them."""
    leaves = {
        name: value.clone().requires_grad_()
        for name, value in given.items()
        if not name.startswith("up.")
    }
    done = sab_lstm(settings, leaves)
    hidden, summaries = torch.stack(done.hidden, 1), torch.stack(done.summaries, 1)
    terms = [given["up.h"] * hidden, given["up.s"] * summaries, given["up.c"] * done.cell]
    sum(term.sum() for term in terms).backward()

    slots = len(done.slots)
    padded = [torch.nn.functional.pad(w, (0, slots - w.shape[1])) for w in done.weights]
    expected = {
        "out.h": hidden,
        "out.s": summaries,
        "out.c": done.cell,
        "out.weights": torch.stack(padded, 1),
        "out.slots": hidden.new_tensor([slots]),
    }
    for name, leaf in leaves.items():
        expected["grad." + name] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return {name: value.detach() for name, value in expected.items()}, done


def largest_error(got: Tensors, want: Tensors) -> float:
    def error(name: str) -> float:
        if want[name].numel() == 0:
            return 0.0
        difference = (got[name].double() - want[name]).abs().max().item()
        return difference / max(1.0, want[name].abs().max().item())

    return max(error(name) for name in want)


def smallest_gap(settings: Settings, done: Pass) -> float:
    """Between neighbouring scores around the last selected one. Scores that are equal in every
    precision do not count."""
    gaps = [math.inf]
    for scores in done.scores:
        ranked = scores.sort(dim=1, descending=True).values
        last = min(settings.k_top, ranked.shape[1])
        edge = ranked[:, max(last - 2, 0) : last + 2]
        gaps += [gap for gap in (edge[:, :-1] - edge[:, 1:]).flatten().tolist() if gap > 0]
    return min(gaps)


def is_well_conditioned(settings: Settings, given: Tensors, expected: Tensors, done: Pass) -> bool:
    if smallest_gap(settings, done) < SMALLEST_GAP:
        return False
    single, _ = solve(settings, {name: value.float() for name, value in given.items()})
    return largest_error(single, expected) < LARGEST_ERROR


def shapes(settings: Settings, sizes: Sizes) -> dict[str, list[int]]:
    """Of everything that is drawn, by name."""
    batch, time, hidden, attention = sizes.batch, sizes.time, sizes.hidden, sizes.attention
    gates = 4 * hidden
    scorer = {
        "additive": {"score.u": [hidden], "score.v": [hidden]},
        "mlp": {
            "score.query": [attention, hidden],
            "score.query_bias": [attention],
            "score.memory": [attention, hidden],
            "score.v": [attention],
        },
        "dot": {"score.query": [attention, hidden], "score.key": [attention, hidden]},
    }
    return {
        "in.x": [batch, time, sizes.input],
        "in.h0": [batch, hidden],
        "in.c0": [batch, hidden],
        "w.ih": [gates, sizes.input],
        "w.hh": [gates, hidden],
        "b.ih": [gates],
        "b.hh": [gates],
        **scorer[settings.score],
        **({"summary_gain": [hidden]} if settings.learned_gain else {}),
        "up.h": [batch, time, hidden],
        "up.s": [batch, time, hidden],
        "up.c": [batch, hidden],
    }


def draw(source: random.Random, settings: Settings, sizes: Sizes, loss: str) -> Tensors:
    """`loss`: "all" steps, the "last" step, or "equal" for all steps and equal scores of all slots."""
    given = {}
    for name, shape in shapes(settings, sizes).items():
        # Matrices by their fan-in, so that no gate saturates; the rest is standard normal.
        matrix = len(shape) == 2 and not name.startswith(("in.", "up."))
        scale = 1 / math.sqrt(shape[1]) if matrix else 1.0
        count = math.prod(shape)
        values = [scale * source.gauss(0, 1) for _ in range(count)]
        given[name] = torch.tensor(values, dtype=torch.float64).reshape(shape)
    if loss == "last":
        given["up.h"][:, :-1] = 0
        given["up.s"][:] = 0
        given["up.c"][:] = 0
    if loss == "equal":
        given["score.query"][:] = 0
    return given


def write_case(path: Path, settings: Settings, tensors: Tensors) -> None:
    """SafeTensors by hand: the same bytes on every run, which the package does not promise."""
    header: dict = {"__metadata__": settings.metadata()}
    data = b""
    for name, tensor in tensors.items():
        values = struct.pack(f"<{tensor.numel()}d", *tensor.flatten().tolist())
        header[name] = {
            "dtype": "F64",
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(values)],
        }
        data += values
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def make_case(
    path: Path, source: random.Random, settings: Settings, sizes: Sizes, loss: str, draws: int
) -> bool:
    """Writes a well-conditioned case; False if there is none among so many draws."""
    for _ in range(draws):
        given = draw(source, settings, sizes, loss)
        expected, done = solve(settings, given)
        if is_well_conditioned(settings, given, expected, done):
            write_case(path, settings, given | expected)
            return True
    return False


SHIPPED = {
    # Without slots and without a boundary between windows: an LSTM.
    "lstm": (Settings("dot", "softmax", k_top=2, k_att=99, k_trunc=99), Sizes(2, 7, 3, 4, 3), "all"),
    "one-step": (
        Settings("dot", "threshold", k_top=3, initial_slot="hidden"),
        Sizes(2, 1, 2, 3, 2),
        "all",
    ),
    # Every score with every sparsifier.
    "additive-threshold": (
        Settings("additive", "threshold", k_top=2, k_trunc=4),
        Sizes(2, 11, 2, 4, 1),
        "all",
    ),
    "additive-released": (
        Settings("additive", "released", k_top=3, truncation_offset=1, initial_slot="hidden"),
        Sizes(3, 9, 1, 4, 1),
        "all",
    ),
    "additive-softmax": (
        Settings("additive", "softmax", k_top=1, k_att=2, k_trunc=2),
        Sizes(2, 10, 3, 3, 1),
        "all",
    ),
    "mlp-threshold": (
        Settings("mlp", "threshold", k_top=1, k_trunc=1, summary_scale=0.1),
        Sizes(2, 9, 2, 4, 3),
        "all",
    ),
    "mlp-released": (
        Settings("mlp", "released", k_top=3, k_att=2, k_trunc=5, truncation_offset=3),
        Sizes(2, 12, 1, 5, 2),
        "all",
    ),
    "mlp-softmax": (
        Settings("mlp", "softmax", k_top=3, initial_slot="hidden"),
        Sizes(1, 11, 3, 5, 4),
        "all",
    ),
    "dot-threshold": (
        Settings("dot", "threshold", k_top=2, k_att=3, k_trunc=4, initial_slot="hidden"),
        Sizes(2, 13, 2, 4, 3),
        "all",
    ),
    "dot-released": (
        Settings("dot", "released", k_top=2, k_trunc=4, truncation_offset=4, summary_scale=0.5),
        Sizes(2, 9, 2, 5, 3),
        "all",
    ),
    "dot-softmax": (
        Settings("dot", "softmax", k_top=2, truncation_offset=1, summary_scale=0.1),
        Sizes(3, 10, 2, 4, 3),
        "all",
    ),
    # More k_top than slots and one window: full self-attention, full backpropagation.
    "full-attention": (
        Settings("mlp", "threshold", k_top=50, k_trunc=50),
        Sizes(2, 8, 2, 4, 3),
        "all",
    ),
    "equal-scores": (
        Settings("dot", "softmax", k_top=2, k_trunc=4),
        Sizes(2, 8, 2, 3, 2),
        "equal",
    ),
    # Gradient enters at the last step alone and travels by reminders.
    "last-step": (
        Settings("dot", "softmax", k_top=2, k_att=2),
        Sizes(2, 16, 1, 4, 3),
        "last",
    ),
    "max-hops-0": (
        Settings("dot", "threshold", k_top=2, initial_slot="hidden", max_hops=0),
        Sizes(2, 10, 2, 4, 2),
        "all",
    ),
    "max-hops-1": (
        Settings("mlp", "softmax", k_top=2, k_att=2, max_hops=1, summary_scale=0.5),
        Sizes(2, 14, 1, 4, 2),
        "last",
    ),
    "max-hops-2": (
        Settings("dot", "softmax", k_top=2, truncation_offset=1, initial_slot="hidden", max_hops=2),
        Sizes(2, 12, 1, 4, 3),
        "all",
    ),
    # Factors on the summary that are learned.
    "learned-gain": (
        Settings("dot", "softmax", k_top=2, k_att=2, truncation_offset=1, learned_gain=True),
        Sizes(3, 12, 2, 5, 3),
        "all",
    ),
    "learned-hops": (
        Settings(
            "mlp",
            "softmax",
            k_top=2,
            k_trunc=2,
            initial_slot="hidden",
            max_hops=1,
            learned_gain=True,
            detach_scores=True,
        ),
        Sizes(2, 10, 2, 4, 3),
        "all",
    ),
    # No gradient through scores to states. With raw scores as weights, u has gradient all the same.
    "detached-scores": (
        Settings("dot", "threshold", 2, k_trunc=4, initial_slot="hidden", detach_scores=True),
        Sizes(2, 11, 2, 4, 3),
        "all",
    ),
    "detached-released": (
        Settings("additive", "released", k_top=3, k_att=2, k_trunc=4, detach_scores=True),
        Sizes(2, 11, 2, 4, 1),
        "all",
    ),
}


def random_case(source: random.Random) -> tuple[Settings, Sizes, str]:
    k_trunc = source.choice([1, 2, 3, 5, 8, 99])
    settings = Settings(
        score=source.choice(list(SCORES)),
        sparsifier=source.choice(list(SPARSIFIERS)),
        k_top=source.choice([1, 2, 3, 4, 7, 50]),
        k_att=source.choice([1, 1, 2, 3, 5, 50]),
        k_trunc=k_trunc,
        truncation_offset=source.choice([0, 0, 1, k_trunc - 1, k_trunc, k_trunc + 2]),
        initial_slot=source.choice(["none", "hidden"]),
        max_hops=source.choice([None, None, 0, 1, 2, 3, 5]),
        summary_scale=source.choice([1.0, 1.0, 0.1, 0.7, 0.0]),
        learned_gain=source.choice([False, False, True]),
        detach_scores=source.choice([False, False, True]),
    )
    sizes = Sizes(
        batch=source.choice([1, 2, 3, 5]),
        time=source.choice([1, 2, 3, 7, 13, 20]),
        input=source.choice([1, 2, 5]),
        hidden=source.choice([1, 2, 3, 5, 7, 9]),
        attention=source.choice([1, 2, 3, 5]),
    )
    return settings, sizes, source.choice(["all", "all", "last"])


def random_cases(folder: Path, count: int, seed: int) -> Iterator[Path]:
    source = random.Random(seed)
    made = 0
    while made < count:
        settings, sizes, loss = random_case(source)
        path = folder / f"random-{seed}-{made + 1}.safetensors"
        # Some settings have no well-conditioned case: many slots of one unit score nearly the same.
        if make_case(path, source, settings, sizes, loss, DRAWS_OF_RANDOM_SETTINGS):
            made += 1
            yield path


def shipped_cases(folder: Path) -> Iterator[Path]:
    for name, (settings, sizes, loss) in SHIPPED.items():
        path = folder / f"{name}.safetensors"
        if not make_case(path, random.Random(name), settings, sizes, loss, DRAWS):
            raise SystemExit(f"{name}: no well-conditioned case in {DRAWS} draws")
        yield path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", metavar="OUT_DIR", type=Path, help="made if it does not exist")
    parser.add_argument("--random", metavar="N", type=int, help="write N random cases")
    parser.add_argument("--seed", metavar="S", type=int, default=1, help="of the random cases (1)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.random is None:
        cases = shipped_cases(args.folder)
    else:
        cases = random_cases(args.folder, args.random, args.seed)
    for path in cases:
        print(path)


if __name__ == "__main__":
    main()
