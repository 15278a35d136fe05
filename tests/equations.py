"""The blocks, written out from the papers: nothing here uses the package or timm's forward."""

# B batch, T tokens, D width, H hidden

import math

import torch

SCALE = 0.3


def linear(layer):
    return lambda x: x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


def norm(layer):
    def apply(x):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias

    return apply


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def operations(block):
    """What is frozen in a block or trains as it is; the last layer of a branch may sit in a module that adds to it."""
    proj, fc2 = (getattr(layer, "operation", layer) for layer in (block.attn.proj, block.mlp.fc2))
    return {
        "norm1": norm(block.norm1),
        "attn.qkv": linear(block.attn.qkv),
        "attn.proj": linear(proj),
        "norm2": norm(block.norm2),
        "mlp.fc1": linear(block.mlp.fc1),
        "mlp.fc2": linear(fc2),
    }


def attend(x, ops, heads, bias=0.0):
    """Softmax attention over the tokens of x (N, T, D)."""
    q, k, v = ops["attn.qkv"](x).chunk(3, -1)
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias).softmax(-1)
    return ops["attn.proj"]((weights @ v).transpose(1, 2).flatten(2))


def attend_in_windows(x, ops, heads, table, window=7, shift=3):
    """Attention within shifted 7x7 windows of x (B, R, C, D), one window after the other."""
    size = x.shape[1]
    cell = torch.arange(window * window)
    row, column = cell // window, cell % window
    offset = (row[:, None] - row + window - 1) * (2 * window - 1) + column[:, None] - column + window - 1
    bias = table[offset].permute(2, 0, 1)
    band = torch.tensor([0] * (size - window) + [1] * (window - shift) + [2] * shift)
    region = 3 * band[:, None] + band
    x = x.roll((-shift, -shift), (1, 2))
    out = torch.empty_like(x)
    for top in range(0, size, window):
        for left in range(0, size, window):
            at = (slice(None), slice(top, top + window), slice(left, left + window))
            inside = region[at[1:]].flatten()
            apart = -100.0 * (inside[:, None] != inside)
            out[at] = attend(x[at].flatten(1, 2), ops, heads, bias + apart).view_as(x[at])
    return out.roll((shift, shift), (1, 2))


def feed_forward(x, ops):
    return ops["mlp.fc2"](gelu(ops["mlp.fc1"](x)))


def bottleneck(x, t, name, act):
    return act(x @ t[f"{name}down.weight"].T + t[f"{name}down.bias"]) @ t[f"{name}up.weight"].T + t[f"{name}up.bias"]


def convolved(grid, weight, bias):
    """One pixel of (B, R, C, H) and one of its neighbours after the other, with weights (out, in, k, k)."""
    out, reach = torch.zeros_like(grid) + bias, weight.shape[-1] // 2
    rows, columns = grid.shape[1:3]
    for r in range(rows):
        for c in range(columns):
            for dr in range(-reach, reach + 1):
                for dc in range(-reach, reach + 1):
                    if 0 <= r + dr < rows and 0 <= c + dc < columns:
                        out[:, r, c] += grid[:, r + dr, c + dc] @ weight[:, :, dr + reach, dc + reach].T
    return out


def on_grid(hidden, apply):
    """The patches as an image, the class token as one of a single pixel; a Swin has images alone."""
    if hidden.ndim == 4:
        return apply(hidden)
    side = math.isqrt(hidden.shape[1] - 1)
    first = apply(hidden[:, :1, None])[:, :, 0]
    return torch.cat([first, apply(hidden[:, 1:].unflatten(1, (side, side))).flatten(1, 2)], 1)


def conv_bottleneck(x, t, name):
    def quick(x):
        return x / (1 + torch.exp(-1.702 * x))

    hidden = quick(x @ t[f"{name}down.weight"].T + t[f"{name}down.bias"])
    hidden = on_grid(hidden, lambda grid: convolved(grid, t[f"{name}conv.weight"], t[f"{name}conv.bias"]))
    return quick(hidden) @ t[f"{name}up.weight"].T + t[f"{name}up.bias"]


def mona(x, t, name):
    def of_several_sizes(q):
        total = 0
        for number in range(3):
            weight, bias = t[f"{name}convs.{number}.weight"], t[f"{name}convs.{number}.bias"]
            apart = torch.diag_embed(weight[:, 0].permute(1, 2, 0)).permute(2, 3, 0, 1)
            total = total + convolved(q, apart, bias)
        q = q + total / 3
        return q + q @ t[f"{name}mix.weight"][:, :, 0, 0].T + t[f"{name}mix.bias"]

    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    normed = normed * t[f"{name}norm.weight"] + t[f"{name}norm.bias"]
    mixed = normed * t[f"{name}normed_gain"] + x * t[f"{name}gain"]
    hidden = on_grid(mixed @ t[f"{name}down.weight"].T + t[f"{name}down.bias"], of_several_sizes)
    return x + gelu(hidden) @ t[f"{name}up.weight"].T + t[f"{name}up.bias"]


def rep(x, t, name):
    hidden = x @ t[f"{name}down.weight"].T + t[f"{name}down.bias"]
    half, width = hidden.shape[-1] // 2, x.shape[-1]
    upper = hidden[..., :half] @ t[f"{name}up_weight"][: width // 2].T
    lower = hidden[..., half:] @ t[f"{name}up_weight"][width // 2 :].T
    return x + SCALE * (torch.cat([upper, lower], -1) + t[f"{name}up_bias"])


def lora(x, t, plain, name):
    """One part of qkv after the other; what is not updated has no tensors."""
    if name != "attn.qkv":
        return plain[name](x) + SCALE * (x @ t[f"{name}.down.weight"].T) @ t[f"{name}.up.weight"].T
    parts = []
    for part, value in zip("qkv", plain[name](x).chunk(3, -1), strict=True):
        down, up = (t.get(f"{name}.{part}_{way}.weight") for way in ("down", "up"))
        parts.append(value if up is None else value + SCALE * x @ (up @ down).T)
    return torch.cat(parts, -1)


def fact(x, t, plain, name, kind):
    """One square slice after the other: of outputs, for the MLP's second layer of inputs."""
    u, v = t["attn.qkv.outer.u"], t["attn.qkv.outer.v"]
    if kind == "fact_tt":
        updates = [u @ s @ v for s in t[f"{name}.inner.s"]]
    else:
        core = t["attn.qkv.inner.core.c"]
        updates = [u @ sum(core[:, :, k] * weight for k, weight in enumerate(p)) @ v for p in t[f"{name}.inner.p"]]
    if name == "mlp.fc2":
        return plain[name](x) + SCALE * sum(part @ of for part, of in zip(x.chunk(4, -1), updates, strict=True))
    return plain[name](x) + SCALE * torch.cat([x @ update for update in updates], -1)


def arc(x, t, own, shared):
    """x (1 + U diag(c) U^T) + b."""
    u = t[f"{shared}.basis.u"]
    return x @ (torch.eye(len(u), dtype=u.dtype) + u @ torch.diag(t[f"{own}.c"]) @ u.T) + t[f"{own}.b"]


def rank_one(x, t, name, layer):
    """Row by row of the weight."""
    parts = 3 if name == "attn.qkv" else 1
    weight, bias = layer.weight.clone(), layer.bias + t[f"{name}.t"]
    rows, inputs = len(weight) // parts, weight.shape[1]
    for row in range(len(weight)):
        of = row // rows * inputs
        weight[row] += weight[row] * t[f"{name}.a"][row] * t[f"{name}.b"][of : of + inputs]
    return x @ weight.T + bias


def dora(x, t, name, layer):
    """Row by row of the weights of queries and of values."""
    weight = layer.weight.clone()
    third = len(weight) // 3
    for part, begin in (("q", 0), ("v", 2 * third)):
        update = t[f"{name}.{part}_up.weight"] @ t[f"{name}.{part}_down.weight"]
        for row in range(third):
            new = layer.weight[begin + row] + SCALE * update[row]
            weight[begin + row] = t[f"{name}.{part}_length"][row] * new / math.sqrt((new * new).sum())
    return x @ weight.T + layer.bias


def mosa(x, t, up):
    """With one of the four ups, whose weights are those that it owns."""
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    normed = normed * t["adapter.norm.weight"] + t["adapter.norm.bias"]
    hidden = gelu(normed @ t["adapter.down.weight"].T + t["adapter.down.bias"])
    weight = torch.where(t["adapter.owner"] == up, t["adapter.up_weight"], 0)
    return hidden @ weight.T + t["adapter.up_bias"].chunk(4)[up]


def expected(kind, x, raw, attention, t):
    """The output of a frozen block with what an adapter added to it, or to all blocks of the stage: tensors `t`."""

    def adapter(x):
        return bottleneck(x, t, "adapter.", gelu)

    if kind == "vpt_deep":
        x = torch.cat([x[:, :1], t["prompts"].expand(len(x), -1, -1), x[:, 1:]], 1)
    plain = ops = operations(raw)
    if kind == "lora":
        adapted = {key.rpartition(".")[0].rpartition(".")[0] for key in t if "down" in key}
        ops = {**plain, **{n: (lambda x, n=n: lora(x, t, plain, n)) for n in adapted}}
    if kind.startswith("fact"):
        names = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        ops = {**plain, **{n: (lambda x, n=n: fact(x, t, plain, n, kind)) for n in names}}
    if kind == "rlrr":
        names = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        ops = {**plain, **{n: (lambda x, n=n: rank_one(x, t, n, raw.get_submodule(n))) for n in names}}
        for n in ("norm1", "norm2"):
            ops[n] = lambda x, n=n: plain[n](x) * t[f"{n}.scale"] + t[f"{n}.shift"]
    if kind == "difffit":
        ops = {**plain, **{n: (lambda x, n=n: plain[n](x) * t[f"{n}.gain"]) for n in ("attn.proj", "mlp.fc2")}}
    if kind == "ia3":

        def qkv(x):
            q, k, v = plain["attn.qkv"](x).chunk(3, -1)
            of_keys, of_values = t["attn.qkv.gain"].chunk(2)
            return torch.cat([q, k * of_keys, v * of_values], -1)

        ops = {**plain, "attn.qkv": qkv, "mlp.fc2": lambda x: plain["mlp.fc2"](x * t["mlp.fc2.gain"])}
    if kind == "vera":
        drawn_a, drawn_b = t["attn.qkv.drawn.a"], t["attn.qkv.drawn.b"]
        update = torch.diag(t["attn.qkv.b"]) @ drawn_b @ torch.diag(t["attn.qkv.d"]) @ drawn_a
        ops = {**plain, "attn.qkv": lambda x: plain["attn.qkv"](x) + x @ update.T}
    if kind == "dora":
        ops = {**plain, "attn.qkv": lambda x: dora(x, t, "attn.qkv", raw.attn.qkv)}
    if kind == "arc":  # in a Swin, whose blocks are wrapped, the second sits on the stream
        where = "block." if "adapter.c" in t else ""
        at, fc1 = f"{where}attn.qkv.adapter", "mlp.fc1.adapter"
        ops = {**plain, "attn.qkv": lambda x: plain["attn.qkv"](arc(x, t, at, at))}
        if not where:
            ops["mlp.fc1"] = lambda x: plain["mlp.fc1"](arc(x, t, fc1, fc1))
    if kind == "repadapter":
        ops = {**plain, **{n: (lambda x, n=n: plain[n](rep(x, t, f"{n}."))) for n in ("attn.qkv", "mlp.fc1")}}
    if kind == "ssf":
        ops = {n: (lambda x, n=n, op=op: op(x) * t[f"{n}.scale"] + t[f"{n}.shift"]) for n, op in plain.items()}
    first, second = 0, 0
    normed = ops["norm1"](x)
    if kind == "parallel_shared":
        first = SCALE * adapter(x)
    if kind == "convpass":
        first = SCALE * conv_bottleneck(normed, t, "attention_adapter.")
    branch = attention(normed, ops)
    if kind == "res_adapter":
        first = SCALE * bottleneck(branch, t, "attention_adapter.", gelu)
    x = x + branch + first
    if kind == "mona":
        x = mona(x, t, "attention_adapter.")
    if kind == "arc" and "adapter.c" in t:
        x = arc(x, t, "adapter", "adapter")
    normed = ops["norm2"](x)
    if kind in ("parallel", "parallel_shared"):
        second = SCALE * adapter(x)
    if kind == "adaptformer":
        second = SCALE * bottleneck(x, t, "adapter.", lambda x: x.clamp_min(0))
    if kind == "mosa":
        second = SCALE * sum(mosa(x, t, up) for up in range(4)) / 4
    if kind == "convpass":
        second = SCALE * conv_bottleneck(normed, t, "mlp_adapter.")
    branch = feed_forward(normed, ops)
    if kind == "res_adapter":
        second = SCALE * bottleneck(branch, t, "mlp_adapter.", gelu)
    x = x + branch + second
    if kind == "mona":
        x = mona(x, t, "mlp_adapter.")
    if kind == "sequential":
        x = x + adapter(x)
    if kind == "adapter_plus":
        x = x + t["adapter.gain"] * adapter(x)
    if kind == "vpt_deep":
        x = torch.cat([x[:, :1], x[:, 1 + len(t["prompts"]) :]], 1)
    return x
