"""The kinds of adapter, each in one value: what it uses, where it fits, what can be done with it, where its code is."""

from dataclasses import dataclass

EVERY_FAMILY = ("vit", "swin")


@dataclass(frozen=True)
class Kind:
    """All that a kind is; light, as every config asks it."""

    code: str  # module.name in `adapters`: a wrapper of every block, or a function that changes a backbone in place
    uses: tuple[str, ...]  # dotted keys that change what it does; a search need not touch the others
    note: str
    families: tuple[str, ...] = EVERY_FAMILY  # of backbones, as `backbones.family` names them
    hidden_up_to_width: bool = True  # whether adapter.hidden_dim may not exceed the width of a block
    hidden_even: bool = False
    merges: bool = False  # whether what it learnt can be folded into the frozen weights
    pads: bool = False  # whether hidden numbers whose weights are zero stay zero: they add nothing, and get no gradient
    stacks: bool = False  # whether all that trains are whole linear layers, so that several runs compute as one


_HIDDEN, _SCALE, _INIT = "adapter.hidden_dim", "adapter.scale", "adapter.init"

# The first three are the paper's; the others are what its Table 3 compares with. `repadapter` does not pad, as its
# hidden numbers lie in two groups, nor `vpt_deep`, whose prompts are attended to.
KINDS = {
    "sequential": Kind(
        "bottleneck.Sequential", (_HIDDEN, _INIT), "a bottleneck after every block", pads=True, stacks=True
    ),
    "parallel": Kind(
        "bottleneck.Parallel", (_HIDDEN, _SCALE, _INIT), "a bottleneck beside every MLP", pads=True, stacks=True
    ),
    "parallel_shared": Kind(
        "bottleneck.ParallelShared",
        (_HIDDEN, _SCALE, _INIT),
        "one bottleneck beside every attention and its MLP",
        pads=True,
        stacks=True,
    ),
    "linear": Kind("operations.linear", (), "the head alone", stacks=True),
    "full": Kind("operations.full", (), "everything trains; an export holds the whole backbone"),
    "bitfit": Kind("operations.bitfit", (), "all biases"),
    "lora": Kind(
        "operations.lora",
        (_HIDDEN, _SCALE),
        "low-rank updates of queries and values; hidden_dim is the rank",
        merges=True,
        pads=True,
        stacks=True,
    ),
    "ssf": Kind("operations.ssf", (), "a scale and a shift after every operation", merges=True),
    "vpt_deep": Kind(
        "prompts.VptDeep",
        (_HIDDEN,),
        "prompts in front of every block; hidden_dim is their number",
        families=("vit",),
        hidden_up_to_width=False,
    ),
    "adaptformer": Kind(
        "bottleneck.AdaptFormer",
        (_HIDDEN, _SCALE),
        "a bottleneck with ReLU beside every MLP, starting at zero",
        pads=True,
        stacks=True,
    ),
    "repadapter": Kind(
        "operations.repadapter",
        (_HIDDEN, _SCALE),
        "linear bottlenecks before attention and MLP",
        hidden_even=True,
        merges=True,
    ),
    "convpass": Kind(
        "convpass.Convpass", (_HIDDEN, _SCALE), "convolutional bottlenecks beside attention and MLP", pads=True
    ),
}
