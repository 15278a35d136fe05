"""Exports that are whole in one file, and those that run without this package: all say what the student says."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from conftest import glyphs
from PIL import Image

import idat_tune
from idat_tune import export, kinds, tasks
from idat_tune.errors import BadInput, IdatError
from idat_tune.export import portable, whole
from idat_tune.model import build
from idat_tune.tasks import Task

VIT = {"student": "glyph_base"}
SWIN = {"student": "random:swin_tiny_patch4_window7_224", "image_size": 32}
FEW = ("lora", "vpt_deep")  # kinds that are always tested; on a Swin, where that takes long, as slow tests


def both(few):
    """Every kind on a ViT and on a Swin; but for few of them only where time does not matter."""
    slow, long = pytest.mark.slow, pytest.mark.long
    return [
        pytest.param(
            kind,
            place,
            marks=([] if kind in few else [long]) if place is VIT else [slow if kind in FEW else long],
            id=f"{kind}-{family}",
        )
        for family, place in (("vit", VIT), ("swin", SWIN))
        for kind, known in kinds.KINDS.items()
        if family in known.families
    ]


def exported(folder, kind="lora", teacher=False, **changes):
    """An export of a student whose adapters do something."""
    random = torch.Generator().manual_seed(0)
    config = glyphs(adapter__kind=kind, **{"teacher": "glyph_small" if teacher else "none", **changes})
    names = [config.student, config.teacher] if teacher else [config.student]
    states = []
    for seed, name in enumerate(names):
        state = build(name, config.classes, config, seed=seed).trained_state()
        states.append({key: value + 0.02 * torch.randn(value.shape, generator=random) for key, value in state.items()})
    export.save(folder, config, states[0], {"test_accuracy": 0.5}, teacher=states[1] if teacher else None)
    return folder


def logits(student, batch=5):
    spec = student.model.spec
    shape = (batch, spec.channels, spec.size, spec.size)
    with torch.no_grad():
        return student(torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(9)))


def format_of(folder):
    return json.loads((folder / "provenance.json").read_text())["format"]


# Whole in one file


@pytest.mark.parametrize(("kind", "place"), both(kinds.KINDS))
def test_a_student_in_one_file_gives_its_logits_and_needs_no_backbone(kind, place, tmp_path, monkeypatch):
    source = exported(tmp_path / "student", kind, **place)
    student = idat_tune.load(source)
    about = export.convert(source, tmp_path / "whole", "merged")
    family = "swin" if place is SWIN else "vit"
    can = family in kinds.KINDS[kind].merges or not kinds.KINDS[kind].uses
    assert about["adapters"] == ("merged" if can else "beside")
    monkeypatch.setattr("idat_tune.embedded.weights_file", None)
    monkeypatch.setattr("idat_tune.weights.check_same", None)
    loaded = idat_tune.load(tmp_path / "whole")
    torch.testing.assert_close(logits(loaded), logits(student), rtol=0, atol=1e-5)
    assert (loaded.config, loaded.labels, loaded.metrics) == (student.config, student.labels, student.metrics)


def test_a_merged_file_is_one_of_timms_own(tmp_path):
    import timm
    from safetensors.torch import load_file

    place = {"student": "random:vit_tiny_patch16_224", "image_size": 32}
    export.convert(exported(tmp_path / "student", "lora", **place), tmp_path / "whole", "merged")
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=32).eval()
    plain.load_state_dict(load_file(tmp_path / "whole/model.safetensors"))
    student = idat_tune.load(tmp_path / "whole")
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(plain(student.model.normalised(pixels)), student(pixels))


def test_a_pair_in_two_whole_files_is_the_pair(tmp_path):
    source = exported(tmp_path / "pair", "lora", teacher=True)
    export.convert(source, tmp_path / "whole", "merged")
    loaded = idat_tune.load(tmp_path / "whole")
    assert isinstance(loaded.model, export.Pair)
    torch.testing.assert_close(logits(loaded), logits(idat_tune.load(source)), rtol=0, atol=1e-5)


def test_the_gist_token_stays_in_a_merged_student(tmp_path):
    source = exported(tmp_path / "student", "lora", gist__token=True)
    export.convert(source, tmp_path / "whole", "merged")
    torch.testing.assert_close(
        logits(idat_tune.load(tmp_path / "whole")), logits(idat_tune.load(source)), rtol=0, atol=1e-5
    )


def test_a_bias_that_merging_made_is_loaded(tmp_path):
    model = build("glyph_base", 10, glyphs(adapter__kind="linear"), seed=0).eval()
    qkv = model.backbone.blocks[0].attn.qkv
    bias = qkv.bias.clone()
    whole.write(tmp_path / "m.safetensors", model, merged=True)
    qkv.bias = None
    whole._give_biases(model.backbone, {"blocks.0.attn.qkv.bias": bias})
    assert torch.equal(qkv.bias, bias)
    assert not qkv.bias.requires_grad


@pytest.mark.parametrize("damage", ["cut", "of another"])
def test_a_damaged_whole_file_is_named(damage, tmp_path):
    export.convert(exported(tmp_path / "student"), tmp_path / "whole", "merged")
    path = tmp_path / "whole/model.safetensors"
    adapter = (tmp_path / "student/adapter.safetensors").read_bytes()
    path.write_bytes(path.read_bytes()[:99] if damage == "cut" else adapter)
    with pytest.raises(BadInput, match=r"model\.safetensors"):
        idat_tune.load(tmp_path / "whole")


# Graphs


@pytest.mark.parametrize(("kind", "place"), both(FEW))
def test_onnx_gives_the_logits_of_the_student_at_any_batch(kind, place, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    source = exported(tmp_path / "student", kind, **place)
    about = export.convert(source, tmp_path / "graph", "onnx")
    assert about["largest_difference"] < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "graph/student.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape[0]) == ("pixels", "tensor(uint8)", "batch")
    student = idat_tune.load(source)
    pixels = np.random.default_rng(0).integers(0, 256, (5, *given.shape[1:]), dtype=np.uint8)
    with torch.no_grad():
        wanted = student(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(session.run(None, {"pixels": pixels})[0], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "place"), both(FEW))
def test_a_torch_program_gives_the_logits_of_the_student_at_any_batch(kind, place, tmp_path):
    source = exported(tmp_path / "student", kind, **place)
    about = export.convert(source, tmp_path / "graph", "torch-export")
    assert about["largest_difference"] < 1e-4
    program = torch.export.load(tmp_path / "graph/student.pt2").module()
    student = idat_tune.load(source)
    spec = student.model.spec
    for batch in (1, 3, 8):
        pixels = torch.randint(0, 256, (batch, spec.channels, spec.size, spec.size), dtype=torch.uint8)
        with torch.no_grad():
            torch.testing.assert_close(program(pixels), student(pixels), rtol=1e-4, atol=1e-4)


def test_a_torch_program_holds_no_pickled_tensors(tmp_path):
    export.convert(exported(tmp_path / "student"), tmp_path / "graph", "torch-export")
    with zipfile.ZipFile(tmp_path / "graph/student.pt2") as archive:
        names = archive.namelist()
        configs = [json.loads(archive.read(name)) for name in names if name.endswith("_config.json")]
        entries = [entry for config in configs for entry in config["config"].values()]
        assert entries
        assert not any(entry["use_pickle"] for entry in entries)
        pickled = [name for name in names if archive.read(name)[:2] == b"PK" or b"data.pkl" in archive.read(name)[:200]]
    assert [name.rsplit("/", 1)[1] for name in pickled] == ["model.pt"]  # the example of its input


def test_a_pair_is_one_graph(tmp_path):
    source = exported(tmp_path / "pair", teacher=True)
    assert export.convert(source, tmp_path / "graph", "torch-export")["with_teacher"]
    program = torch.export.load(tmp_path / "graph/student.pt2").module()
    student = idat_tune.load(source)
    pixels = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(program(pixels), student(pixels), rtol=1e-4, atol=1e-4)


def test_what_gives_other_logits_is_not_exported(tmp_path, monkeypatch):
    source = exported(tmp_path / "student")
    monkeypatch.setattr(portable.torch.export, "save", lambda program, path: None)
    monkeypatch.setattr(whole, "merges", lambda config, pair: False)
    other = idat_tune.load(exported(tmp_path / "other", "parallel"))
    with pytest.raises(IdatError, match="gives other logits than the student at a batch of 1; nothing is exported"):
        portable.write_program(tmp_path / "x.pt2", other, idat_tune.load(source))


# Their folders

FORMS = [pytest.param("onnx", id="onnx"), pytest.param("torch-export", id="torch-export")]


def pictures(folder):
    """Pictures as people have them: turned, transparent, with a palette, grey, large, of 16 bits."""
    random = np.random.default_rng(0)
    colours = Image.fromarray(random.integers(0, 256, (40, 56, 3), dtype=np.uint8)).resize((400, 300))
    turned = Image.Exif()
    turned[0x0112] = 6
    folder.mkdir()
    colours.save(folder / "turned.jpg", exif=turned)
    colours.convert("P").save(folder / "palette.png")
    colours.convert("L").save(folder / "grey.png")
    colours.convert("CMYK").save(folder / "print.jpg")
    clear = colours.copy()
    clear.putalpha(Image.fromarray(random.integers(0, 256, (300, 400), dtype=np.uint8)))
    clear.save(folder / "clear.png")
    Image.fromarray(random.integers(0, 4096, (50, 50), dtype=np.uint16)).save(folder / "deep.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", [pytest.param(VIT, id="grey"), pytest.param(SWIN, id="rgb", marks=pytest.mark.slow)])
def test_the_example_beside_a_graph_gives_the_labels_of_the_student(form, place, tmp_path, monkeypatch):
    if form == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    mine = Task("mine", "Mine", "own", 10, 0, 5e-3, 5e-5, 0.0, class_names=tuple("abcdefghij"))
    monkeypatch.setitem(tasks.TASKS, "mine", mine)
    monkeypatch.setitem(tasks._BY_KEY, "mine", mine)
    monkeypatch.setattr("idat_tune.data.intensity", lambda task: (0.0, 4095.0))
    source = exported(tmp_path / "student", "parallel", task="mine", **place)
    export.convert(source, tmp_path / "graph", form)
    files = pictures(tmp_path / "pictures")
    code = "import sys, runpy; sys.modules['idat_tune'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "graph/example.py", *files],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    said = [line.split("\t") for line in done.stdout.splitlines()]
    wanted = idat_tune.load(source).predict(files)
    assert [line[:2] for line in said] == [[str(f), label] for f, (label, _) in zip(files, wanted, strict=True)]
    assert [float(line[2]) for line in said] == pytest.approx([share for _, share in wanted], abs=1e-4)
    assert len({line[2] for line in said}) > 3
    how = json.loads((tmp_path / "graph/preprocessing.json").read_text())
    assert (how["size"], how["resample"], how["intensity"]) == (32, 3, [0.0, 4095.0])


def test_the_folder_of_a_graph_says_what_it_is_and_is_not_loaded(tmp_path):
    source = exported(tmp_path / "student")
    export.convert(source, tmp_path / "graph", "torch-export")
    beside = ["README.md", "config.yaml", "example.py", "labels.json", "metrics.json", "preprocessing.json"]
    assert sorted(path.name for path in (tmp_path / "graph").iterdir()) == [*beside, "provenance.json", "student.pt2"]
    about = format_of(tmp_path / "graph")
    assert about["sha256"] == export.folder.sha256(tmp_path / "graph/student.pt2")
    assert "torch.export.load" in (tmp_path / "graph/README.md").read_text()
    with pytest.raises(BadInput, match=r"holds student\.pt2, which runs without this package, as its example\.py does"):
        idat_tune.load(tmp_path / "graph")


def test_an_export_of_one_format_is_replaced_by_another(tmp_path):
    source = exported(tmp_path / "student")
    for form in ("merged", "torch-export", "merged"):
        export.convert(source, tmp_path / "out", form)
        assert format_of(tmp_path / "out")["name"] == form
    export.convert(source, source, "merged")
    assert export.STUDENTS["merged"] in {path.name for path in source.iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "student"]


def test_onnx_without_its_packages_is_refused_with_the_extra(monkeypatch):
    monkeypatch.setattr(portable, "find_spec", lambda name: None)
    with pytest.raises(
        BadInput, match=r"needs onnx, onnxscript, onnxruntime; install the extra: pip install 'idat-tun"
    ):
        export.check_format("onnx")
    with pytest.raises(BadInput, match="unknown format 'onx'; did you mean 'onnx'"):
        export.check_format("onx")
