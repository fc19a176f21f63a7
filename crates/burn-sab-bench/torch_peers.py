#!/usr/bin/env python3
"""Times in PyTorch what a user could take instead of burn-sab. `sab-bench` runs it; by itself:

    python crates/burn-sab-bench/torch_peers.py --peer torch-lstm --batch 64 --time 120 --threads 2 [--device cuda]

Prints one JSON line with fields of `sab-bench --json`. Milliseconds are medians over --runs of a forward
pass without gradients and of a training step (forward, and backward of the mean of all outputs or of the last
hidden state, for the gradients of all parameters; no optimiser). `bytes_kept` counts what autograd saves for
the backward pass beside parameters, inputs and outputs. One process, one peer: the peak memory is its own.
On CUDA (ROCm goes by that name too) every time ends when the device is done, and f32 is f32: TF32 is off.

Peers:  torch-lstm  torch.nn.LSTM, full backpropagation through time
        torch-cell  torch.nn.LSTMCell in a Python loop, full backpropagation; with --step a stream, step by step
        torch-sab   SAB in eager PyTorch, the specification's formulas as they stand, no limit on hops

Needs torch and nothing else.
"""
import argparse, json, math, resource, statistics, sys, time
import torch

SECONDS = 20  # a slow peer stops after three runs that took longer than this together
EPSILON = 1e-7
STREAM = 64  # steps of a stream that are timed together


class Lstm(torch.nn.Module):
    def __init__(self, a):
        super().__init__()
        self.lstm = torch.nn.LSTM(a.input, a.hidden, batch_first=True)

    def forward(self, x):
        hidden, (last, _) = self.lstm(x)
        return hidden, last


class Cell(torch.nn.Module):
    def __init__(self, a):
        super().__init__()
        self.cell = torch.nn.LSTMCell(a.input, a.hidden)

    def forward(self, x):
        h = c = x.new_zeros(x.shape[0], self.cell.hidden_size)
        hidden = []
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
            hidden.append(h)
        return torch.stack(hidden, 1), h


class Sab(torch.nn.Module):
    """Slots every k_att steps, the first of them the initial hidden state; windows of k_trunc steps."""

    def __init__(self, a):
        super().__init__()
        self.a = a
        self.cell = torch.nn.LSTMCell(a.input, a.hidden)
        uniform = lambda fan_in, *shape: torch.nn.Parameter((torch.rand(shape) - 0.5) * 4 / math.sqrt(fan_in))
        if a.score == "additive":
            self.u, self.v = uniform(a.hidden, a.hidden), uniform(a.hidden, a.hidden)
        else:
            self.query, self.key = uniform(a.hidden, a.hidden, a.attention), uniform(a.hidden, a.hidden, a.attention)
        if a.score == "mlp":
            self.bias, self.v = uniform(a.hidden, a.attention), uniform(a.attention, a.attention)

    def scores(self, h, slots):
        if self.a.score == "additive":
            return (torch.tanh(h) @ self.u).unsqueeze(1) + torch.tanh(slots) @ self.v
        if self.a.score == "mlp":
            return torch.tanh((h @ self.query + self.bias).unsqueeze(1) + slots @ self.key) @ self.v
        return torch.einsum("ba,bma->bm", h @ self.query, slots @ self.key) / math.sqrt(self.a.attention)

    def weights(self, scores):
        k, m = self.a.k_top, scores.shape[1]
        if self.a.sparsifier == "softmax":
            best, at = scores.topk(min(k, m), 1)
            return torch.zeros_like(scores).scatter(1, at, torch.softmax(best, 1))
        if self.a.sparsifier == "released":
            if m <= k:
                return scores
            excess = torch.relu(scores - scores.topk(k, 1).values[:, -1:] - EPSILON)
        elif m > k:
            excess = torch.relu(scores - scores.topk(k + 1, 1).values[:, -1:])
        else:
            excess = torch.relu(scores - scores.min(1, keepdim=True).values + 1)
        return excess / (excess.sum(1, keepdim=True) + EPSILON)

    def forward(self, x):
        h = c = x.new_zeros(x.shape[0], self.a.hidden)
        slots, hidden = [h], []
        for t in range(x.shape[1]):
            if t % self.a.k_trunc == 0:
                h, c = h.detach(), c.detach()
            h, c = self.cell(x[:, t], (h, c))
            memory = torch.stack(slots, 1)
            h = h + torch.einsum("bm,bmh->bh", self.weights(self.scores(h, memory)), memory)
            hidden.append(h)
            if (t + 1) % self.a.k_att == 0:
                slots.append(h)
        return torch.stack(hidden, 1), h


PEERS = {"torch-lstm": Lstm, "torch-cell": Cell, "torch-sab": Sab}


def now(a):
    """The time at which the device has done all that it was given."""
    if a.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def sample(a, once):
    """Lists of the numbers that `once` returns, one list a number; the first calls do not count."""
    for _ in range(3 if a.device == "cuda" else 1):
        once()
    start, samples = time.perf_counter(), []
    while len(samples) < a.runs and (len(samples) < 3 or time.perf_counter() - start < SECONDS):
        samples.append(once())
    return list(zip(*samples))


def milliseconds(name, times):
    digits = lambda x: round(x * 1e3, 4)
    return {name + "_ms": digits(statistics.median(times)), name + "_spread_ms": [digits(min(times)), digits(max(times))]}


def bytes_kept(model, x):
    """Storages that autograd saves, each counted once."""
    known = {p.untyped_storage().data_ptr() for p in model.parameters()} | {x.untyped_storage().data_ptr()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        # Not a copy: what is kept stays alive, so that no address occurs twice.
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = model(x)
    known |= {y.untyped_storage().data_ptr() for y in outputs}
    return sum(size for at, size in kept.items() if at not in known)


def peak_rss_mib():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def sequences(model, x, a):
    def infer():
        start = now(a)
        with torch.no_grad():
            model(x)
        return (now(a) - start,)

    def train():
        start = now(a)
        for p in model.parameters():
            p.grad = None
        hidden, last = model(x)
        loss = (hidden if a.loss == "mean" else last).mean()
        middle = now(a)
        loss.backward()
        end = now(a)
        return end - middle, end - start

    (forward,) = sample(a, infer)
    backward, step = sample(a, train)
    found = milliseconds("forward", forward) | milliseconds("backward", backward) | milliseconds("train_step", step)
    found["peak_rss_mib"] = peak_rss_mib()
    if a.device == "cuda":
        found["device_mib"] = torch.cuda.max_memory_reserved() >> 20
    return found | dict(runs=len(step), bytes_kept=bytes_kept(model, x))


def stream(model, x, a):
    def steps():
        h = c = x.new_zeros(a.batch, a.hidden)
        start = now(a)
        with torch.no_grad():
            for _ in range(STREAM):
                h, c = model.cell(x[:, 0], (h, c))
        return ((now(a) - start) / STREAM,)

    (times,) = sample(a, steps)
    return milliseconds("forward", times) | dict(runs=len(times), peak_rss_mib=peak_rss_mib())


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--peer", choices=PEERS, required=True)
    sizes = dict(batch=64, time=120, input=10, hidden=128, k_top=5, k_att=1, k_trunc=5, attention=64, threads=2, runs=7)
    for name, value in sizes.items():
        ap.add_argument("--" + name.replace("_", "-"), type=int, default=value)
    ap.add_argument("--score", choices=["additive", "mlp", "dot"], default="dot")
    ap.add_argument("--sparsifier", choices=["threshold", "released", "softmax"], default="softmax")
    ap.add_argument("--loss", choices=["mean", "last"], default="mean")
    ap.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    ap.add_argument("--step", type=int, metavar="SLOTS", help="a stream: only torch-cell, which has no slots")
    a = ap.parse_args()
    if a.step is not None and a.peer != "torch-cell":
        ap.error("--step needs --peer torch-cell")
    if a.device == "cuda" and not torch.cuda.is_available():
        sys.exit(f"PyTorch {torch.__version__} finds no CUDA device: install a build with CUDA, and its driver")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    model = PEERS[a.peer](a).to(a.device)
    x = torch.randn(a.batch, a.time, a.input).to(a.device)
    fields = ["batch", "time", "input", "hidden", "k_top", "k_att", "k_trunc", "score", "attention", "sparsifier", "loss", "threads"]
    line = dict(peer=a.peer) | {name: getattr(a, name) for name in fields} | dict(slots=a.step, device=a.device, torch=torch.__version__)
    print(json.dumps(line | (sequences if a.step is None else stream)(model, x, a)), flush=True)


if __name__ == "__main__":
    main()
