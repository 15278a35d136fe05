"""`describe` gives the paper's arithmetic: Tables 6, 7 and 8, and the published counts of the other kinds."""

import csv
import io

import pytest

from idat_tune import cost
from idat_tune.config import RunConfig

# The paper's own cells, in millions of trainable parameters, CIFAR-100 (100 classes), parallel adapter.
TABLE_6 = """
student,teacher,h8,h16,h32,h64
vit_base,none,0.23,0.38,0.68,1.27
vit_large,none,0.52,0.91,1.70,3.27
vit_base,vit_small,0.35,0.57,1.01,1.90
"""
TABLES_7_AND_8 = """
student,teacher,h8,h4
vit_small,none,,0.08
vit_large,none,,0.32
vit_large,vit_small,,0.40
swin_small,none,,0.16
swin_base,none,,0.21
swin_base,swin_small,,0.37
"""


def cells():
    for table in (TABLE_6, TABLES_7_AND_8):
        for row in csv.DictReader(io.StringIO(table.strip())):
            for column, millions in row.items():
                if column.startswith("h") and millions:
                    yield row["student"], row["teacher"], int(column[1:]), millions


@pytest.mark.parametrize(("student", "teacher", "hidden", "millions"), list(cells()))
def test_the_papers_tables_come_out_to_two_decimals(student, teacher, hidden, millions):
    changes = {"student": student, "teacher": teacher, "adapter.kind": "parallel", "adapter.hidden_dim": hidden}
    found = cost.parameters(RunConfig.for_task("cifar", changes))
    assert f"{found['trainable_params'] / 1e6:.2f}" == millions
    # Both losses of a row train the same parameters.
    assert found["trainable_params"] == found["student"]["trainable_params"] + (
        found["teacher"]["trainable_params"] if found["teacher"] else 0
    )


def test_the_papers_cell_of_a_vit_large_taught_by_itself_adds_rounded_numbers():
    # Table 7 prints 0.64, twice its 0.32; the exact sum is 647,560. No other cell of Tables 6 to 8 differs.
    changes = {"student": "vit_large", "teacher": "vit_large", "adapter.kind": "parallel"}
    found = cost.parameters(RunConfig.for_task("cifar", changes))
    assert found["trainable_params"] == 2 * 323_780
    assert sum(round(found[role]["trainable_params"] / 1e6, 2) for role in ("student", "teacher")) == 0.64


@pytest.mark.parametrize(
    ("backbone", "adapters", "head"),
    [
        ("vit_small", {4: 41_520, 8: 78_432, 16: 152_256, 32: 299_904, 64: 595_200}, 38_500),
        ("vit_base", {4: 82_992, 8: 156_768, 16: 304_320, 32: 599_424, 64: 1_189_632}, 76_900),
        ("vit_large", {4: 221_280, 64: 3_171_840}, 102_500),
        ("swin_small", {4: 81_312}, 76_900),
        ("swin_base", {4: 108_384}, 102_500),
    ],
)
@pytest.mark.parametrize("kind", ["sequential", "parallel_shared"])
def test_adapters_and_heads_are_counted_apart(backbone, adapters, head, kind):
    for hidden, count in adapters.items():
        changes = {"student": backbone, "teacher": "none", "adapter.kind": kind, "adapter.hidden_dim": hidden}
        student = cost.parameters(RunConfig.for_task("cifar", changes))["student"]
        assert (student["adapter_params"], student["head_params"]) == (count, head)


# Published counts for ViT-B/16 without its head, by kind and hidden dimension.
@pytest.mark.parametrize(
    ("kind", "hidden", "count"),
    [
        ("linear", 4, 0),
        ("full", 4, 85_798_656),
        ("bitfit", 4, 102_912),
        ("lora", 8, 294_912),
        ("ssf", 4, 205_824),
        ("vpt_deep", 1, 9_216),
        ("vpt_deep", 100, 921_600),
        ("adaptformer", 4, 82_992),
        ("adaptformer", 8, 156_768),
        ("adaptformer", 64, 1_189_632),
        ("repadapter", 8, 239_808),
        ("convpass", 8, 327_552),
        ("rlrr", 4, 288_768),
        ("ln", 4, 38_400),
        ("difffit", 4, 140_544),
        ("ia3", 4, 55_296),
        ("vera", 256, 30_720),
        ("dora", 8, 313_344),
        ("mona", 64, 2_684_928),
        ("mona", 16, 721_920),
        ("mona", 4, 248_448),
        ("mosa", 16, 350_400),
        ("arc", 50, 96_432),
        ("fact_tt", 8, 21_504),
        ("fact_tt", 16, 61_440),
        ("fact_tk", 16, 30_976),
        ("fact_tk", 32, 86_528),
        ("fact_tk", 64, 369_664),
        ("res_adapter", 13, 497_976),
        ("adapter_plus", 1, 36_876),
        ("adapter_plus", 2, 55_320),
        ("adapter_plus", 4, 92_208),
        ("adapter_plus", 8, 165_984),
        ("adapter_plus", 16, 313_536),
        ("adapter_plus", 32, 608_640),
    ],
)
def test_the_other_kinds_have_their_published_counts(kind, hidden, count):
    changes = {"teacher": "none", "adapter.kind": kind, "adapter.hidden_dim": hidden}
    assert cost.parameters(RunConfig.for_task("cifar", changes))["student"]["adapter_params"] == count


@pytest.mark.parametrize(("student", "count"), [("vit_large", 153_952), ("swin_base", 218_464)])
def test_arc_has_its_published_counts_in_other_backbones(student, count):
    changes = {"student": student, "teacher": "none", "adapter.kind": "arc", "adapter.hidden_dim": 50}
    assert cost.parameters(RunConfig.for_task("cifar", changes))["student"]["adapter_params"] == count


@pytest.mark.parametrize(
    ("student", "targets", "count"),
    [
        ("vit_base", "qv", 12 * 8 * 2 * 1536),
        ("vit_base", "qkv", 12 * 8 * 3 * 1536),
        ("vit_base", "all", 12 * 8 * (4 * 1536 + 2 * 3840)),
        ("vit_large", "all", 24 * 8 * (4 * 2048 + 2 * 5120)),
        # Stages of 128, 256, 512 and 1,024 channels with 2, 2, 18 and 2 blocks.
        ("swin_base", "all", 8 * (4 * 2 + 2 * 5) * (2 * 128 + 2 * 256 + 18 * 512 + 2 * 1024)),
    ],
)
def test_lora_is_counted_with_what_it_updates(student, targets, count):
    changes = {"student": student, "teacher": "none", "adapter.kind": "lora", "adapter.hidden_dim": 8}
    config = RunConfig.for_task("cifar", {**changes, "adapter.targets": targets})
    assert cost.parameters(config)["student"]["adapter_params"] == count


def test_describe_tells_flops_and_memory_beside_the_parameters():
    config = RunConfig.for_task("cifar")
    found = cost.describe(config)
    assert found["trainable_params"] == cost.parameters(config)["trainable_params"] == 159_892 + 80_020
    # ViT-B 35.2 forward and ViT-S 9.2; backward is activation gradients only, none below the first adapter.
    assert found["gflop_per_image"]["forward"] == pytest.approx(44.4, abs=0.1)
    assert found["gflop_per_image"]["backward"] == pytest.approx(42.4, abs=0.1)
    assert 3 < found["memory_gb"] < 6


@pytest.mark.parametrize("kind", ["linear", "lora", "ssf", "vpt_deep", "convpass", "full"])
def test_backward_costs_what_the_kind_needs(kind):
    changes = {"student": "random:vit_tiny_patch16_224", "teacher": "none", "adapter.kind": kind}
    flops = cost.describe(RunConfig.for_task("cifar", changes))["gflop_per_image"]
    if kind == "linear":  # only the head
        assert flops["backward"] < 0.001 * flops["forward"]
    elif kind == "full":  # gradients of weights too
        assert flops["backward"] > 1.9 * flops["forward"]
    else:
        assert 0.85 * flops["forward"] < flops["backward"] < 1.15 * flops["forward"]


def test_counting_needs_neither_weights_nor_values():
    model = cost.shapes("vit_large", 100, RunConfig.for_task("cifar"))
    assert all(parameter.is_meta for parameter in model.parameters())
