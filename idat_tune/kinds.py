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
    merges: tuple[str, ...] = ()  # families in which what it learnt can be folded into the frozen weights
    pads: bool = False  # whether hidden numbers whose weights are zero stay zero: they add nothing, and get no gradient
    adds: bool = True  # whether what it learnt can be told from what is frozen, operation by operation
    records: bool = True  # whether its steps can be recorded: all that is random in them is drop-path
    stacks: bool = False  # whether all that trains are whole linear layers, so that several runs compute as one


_HIDDEN, _SCALE, _INIT = "adapter.hidden_dim", "adapter.scale", "adapter.init"
_DROPOUT, _TARGETS = "adapter.dropout", "adapter.targets"

# The first three are the paper's; those up to `convpass` are what its Table 3 compares with, the others the rest of
# the field. `repadapter` does not pad, as its hidden numbers lie in two groups, nor `vpt_deep`, whose prompts are
# attended to.
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
    "full": Kind("operations.full", (), "everything trains; an export holds the whole backbone", adds=False),
    "bitfit": Kind("operations.bitfit", (), "all biases", adds=False),
    "lora": Kind(
        "lowrank.lora",
        (_HIDDEN, _SCALE, _TARGETS),
        "low-rank updates of queries and values, or of more; hidden_dim is the rank",
        merges=EVERY_FAMILY,
        pads=True,
        stacks=True,
    ),
    "ssf": Kind("scales.ssf", (), "a scale and a shift after every operation", merges=EVERY_FAMILY),
    "vpt_deep": Kind(
        "prompts.VptDeep",
        (_HIDDEN,),
        "prompts in front of every block; hidden_dim is their number",
        families=("vit",),
        adds=False,
        hidden_up_to_width=False,
    ),
    "adaptformer": Kind(
        "bottleneck.AdaptFormer",
        (_HIDDEN, _SCALE, _DROPOUT),
        "a bottleneck with ReLU beside every MLP, starting at zero",
        pads=True,
        stacks=True,
    ),
    "repadapter": Kind(
        "operations.repadapter",
        (_HIDDEN, _SCALE),
        "linear bottlenecks before attention and MLP",
        hidden_even=True,
        merges=EVERY_FAMILY,
    ),
    "convpass": Kind(
        "convpass.Convpass", (_HIDDEN, _SCALE), "convolutional bottlenecks beside attention and MLP", pads=True
    ),
    "adapter_plus": Kind(
        "bottleneck.AdapterPlus", (_HIDDEN,), "a bottleneck with a gain per channel after every block", pads=True
    ),
    "res_adapter": Kind(
        "bottleneck.ResAdapters",
        (_HIDDEN, _SCALE),
        "a bottleneck on what every attention and every MLP gives",
        pads=True,
        stacks=True,
    ),
    "fact_tt": Kind(
        "fact.fact_tt",
        (_HIDDEN, _SCALE, _DROPOUT),
        "updates of all matrices as one tensor train; hidden_dim is the rank",
        merges=EVERY_FAMILY,
        pads=True,
    ),
    "fact_tk": Kind(
        "fact.fact_tk",
        (_HIDDEN, _SCALE, _DROPOUT),
        "updates of all matrices as one Tucker tensor; hidden_dim is the rank",
        merges=EVERY_FAMILY,
        pads=True,
    ),
    "arc": Kind(
        "arc.arc",
        (_HIDDEN, _DROPOUT),
        "adapters before attention and MLP through matrices that all blocks share; hidden_dim is the rank",
        merges=("vit",),
        pads=True,
    ),
    "rlrr": Kind(
        "scales.rlrr", (), "every matrix times one plus a matrix of rank one, and shifts", merges=EVERY_FAMILY
    ),
    "ln": Kind("operations.ln", (), "scale and shift of all norms", adds=False),
    "difffit": Kind(
        "scales.difffit",
        (),
        "all biases, scales of norms, and a gain per channel of every branch",
        adds=False,
        merges=EVERY_FAMILY,
    ),
    "ia3": Kind("scales.ia3", (), "gains on keys, values and the MLP's hidden numbers", merges=EVERY_FAMILY),
    "vera": Kind(
        "lowrank.vera",
        (_HIDDEN,),
        "updates of queries, keys and values by frozen random matrices with gains; hidden_dim is the rank",
        hidden_up_to_width=False,
        merges=EVERY_FAMILY,
    ),
    "dora": Kind(
        "lowrank.dora",
        (_HIDDEN, _SCALE),
        "low-rank updates of the direction of queries and values, and a length per row; hidden_dim is the rank",
        merges=EVERY_FAMILY,
        pads=True,
    ),
    "mona": Kind(
        "mona.Mona", (_HIDDEN, _DROPOUT), "convolutional bottlenecks behind attention and behind the MLP", pads=True
    ),
    "mosa": Kind(
        "mosa.Mosa",
        (_HIDDEN, _SCALE, _DROPOUT),
        "a bottleneck beside every MLP, of which a random part learns",
        records=False,
    ),
}
