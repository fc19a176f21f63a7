#!/usr/bin/env python3
"""Makes the files of weights, inputs and outputs that `tests/torch.rs` reads. Needs PyTorch and safetensors.

    python3 crates/burn-sab/tests/torch/make.py             # writes the files beside this script
    python3 crates/burn-sab/tests/torch/make.py --check f   # loads f into torch.nn.LSTM and compares its outputs
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

FOLDER = Path(__file__).parent
SIZES = dict(input_size=3, hidden_size=4)
BATCH, TIME = 2, 7


def lstm(**options):
    return torch.nn.LSTM(**SIZES, **options)


def save(name, network, prefix, **arrays):
    weights = {prefix + key: value for key, value in network.state_dict().items()}
    arrays = {key: value.detach().contiguous() for key, value in (weights | arrays).items()}
    save_file(arrays, FOLDER / name)


def make_lstm(name, prefix="", **options):
    network = lstm(batch_first=True, **options)
    x = torch.randn(BATCH, TIME, 3)
    states = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    h0, c0 = torch.randn(states, BATCH, 4), torch.randn(states, BATCH, 4)
    y, (hn, cn) = network(x, (h0, c0))
    save(name, network, prefix, x=x, h0=h0, c0=c0, y=y, hn=hn, cn=cn)
    return network


def make_cell():
    network = torch.nn.LSTMCell(**SIZES)
    x = torch.randn(BATCH, TIME, 3)
    h, c = torch.zeros(BATCH, 4), torch.zeros(BATCH, 4)
    hidden = []
    for x_t in x.unbind(1):
        h, c = network(x_t, (h, c))
        hidden.append(h)
    save("cell.safetensors", network, "", x=x, y=torch.stack(hidden, 1))


class Released(torch.nn.Module):
    """The parameters of the authors' release, and its forward pass as the paper and the release define it."""

    def __init__(self, classes, top_k):
        super().__init__()
        self.lstm1 = torch.nn.LSTMCell(**SIZES)
        self.w_t = torch.nn.Parameter(torch.randn(8, 1))
        self.fc = torch.nn.Linear(8, classes)
        self.top_k = top_k

    def weights(self, scores):
        if scores.shape[1] <= self.top_k:
            return scores
        excess = (scores - scores.topk(self.top_k).values[:, -1:] - 1e-7).clamp(min=0)
        return excess / (excess.sum(1, keepdim=True) + 1e-7)

    def forward(self, x):
        h, c = torch.zeros(len(x), 4), torch.zeros(len(x), 4)
        slots, outputs = [h], []
        u, v = self.w_t[:4, 0], self.w_t[4:, 0]
        for x_t in x.unbind(1):
            h, c = self.lstm1(x_t, (h, c))
            memory = torch.stack(slots, 1)
            weights = self.weights((h.tanh() @ u)[:, None] + memory.tanh() @ v)
            summary = (weights[:, :, None] * memory).sum(1)
            h = h + summary
            slots.append(h)
            outputs.append(self.fc(torch.cat([h, summary], 1)))
        return torch.stack(outputs, 1)


def make_release():
    network = Released(classes=5, top_k=3)
    x = torch.randn(BATCH, TIME, 3)
    save("release.safetensors", network, "", x=x, y=network(x))


def check(path):
    """Compares `torch.nn.LSTM` with the weights of `path` to the outputs of stack.safetensors."""
    known = load_file(FOLDER / "stack.safetensors")
    network = lstm(batch_first=True, num_layers=2, bidirectional=True)
    network.load_state_dict(load_file(path))
    y, _ = network(known["x"], (known["h0"], known["c0"]))
    difference = (y - known["y"]).abs().max().item()
    print(f"largest difference {difference:.1e}")
    sys.exit(difference > 1e-6)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        check(sys.argv[2])
    torch.manual_seed(0)
    with torch.no_grad():
        network = make_lstm("stack.safetensors", "encoder.lstm.", num_layers=2, bidirectional=True)
        torch.save({"epoch": 3, "state_dict": network.state_dict()}, FOLDER / "stack.pt")
        make_lstm("no-bias.safetensors", bias=False)
        make_cell()
        make_release()
