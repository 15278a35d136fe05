"""The kinds of adapter by name: what each uses of the settings, and which backbones it can sit in."""

from dataclasses import dataclass

EVERY_FAMILY = ("vit", "swin")


@dataclass(frozen=True)
class Kind:
    """What a config may ask of a kind; `adapters` holds the code."""

    uses: tuple[str, ...]  # dotted keys that change what it does; a search need not touch the others
    note: str
    families: tuple[str, ...] = EVERY_FAMILY  # of backbones, as `backbones.family` names them
    hidden_up_to_width: bool = True  # whether adapter.hidden_dim may not exceed the width of a block
    hidden_even: bool = False
    merges: bool = False  # whether what it learnt can be folded into the frozen weights


_HIDDEN, _SCALE, _INIT = "adapter.hidden_dim", "adapter.scale", "adapter.init"

# The first three are the paper's; the others are what its Table 3 compares with.
KINDS = {
    "sequential": Kind((_HIDDEN, _INIT), "a bottleneck after every block"),
    "parallel": Kind((_HIDDEN, _SCALE, _INIT), "a bottleneck beside every MLP"),
    "parallel_shared": Kind((_HIDDEN, _SCALE, _INIT), "one bottleneck beside every attention and its MLP"),
    "linear": Kind((), "the head alone"),
    "full": Kind((), "everything trains; an export holds the whole backbone"),
    "bitfit": Kind((), "all biases"),
    "lora": Kind((_HIDDEN, _SCALE), "low-rank updates of queries and values; hidden_dim is the rank", merges=True),
    "ssf": Kind((), "a scale and a shift after every operation", merges=True),
    "vpt_deep": Kind(
        (_HIDDEN,), "prompts in front of every block; hidden_dim is their number", ("vit",), hidden_up_to_width=False
    ),
    "adaptformer": Kind((_HIDDEN, _SCALE), "a bottleneck with ReLU beside every MLP, starting at zero"),
    "repadapter": Kind((_HIDDEN, _SCALE), "linear bottlenecks before attention and MLP", hidden_even=True, merges=True),
    "convpass": Kind((_HIDDEN, _SCALE), "convolutional bottlenecks beside attention and MLP"),
}
