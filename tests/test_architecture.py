"""The plan of the house: which module may import what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "idat_tune"

# In order: a module may import those above it, and of third-party packages only what stands beside it.
HOUSE = {
    "errors": "",
    "interrupts": "",
    "reading": "yaml",
    "class_names": "",
    "tasks": "",
    "backbones": "",
    "kinds": "",
    "recipes": "",
    "settings": "pydantic",
    "config": "pydantic",
    "metrics": "pyarrow",
    "predictions": "pyarrow numpy",
    "features": "numpy sklearn safetensors",
    "space": "optuna",
    "portfolio": "",
    "embedded": "numpy PIL matplotlib sklearn torch timm safetensors",
    "data": "pyarrow torch torchvision PIL numpy sklearn tensorflow_datasets pillow_heif",
    "adapters": "torch",
    "distill": "torch",
    "weights": "timm torch safetensors huggingface_hub numpy",
    "model": "timm torch",
    "cost": "torch",
    "engine": "torch timm",
    "run": "torch",
    "export": "safetensors torch yaml PIL huggingface_hub onnxruntime",
    "predict": "torch",
    "single": "",
    "journal": "numpy",
    "differences": "numpy scipy",
    "tracking": "mlflow sqlalchemy pandas",
    "students": "mlflow torch",
    "worker": "ray torch safetensors numpy",
    "report": "numpy optuna safetensors PIL",
    "search": "pydantic yaml ray optuna safetensors scipy numpy pyarrow",
    "replay": "optuna pyarrow numpy matplotlib",
    "doctor": "torch",
    "clusters": "ray botocore",
    "screen": "rich",
    "progress": "rich",
    "cli": "typer rich PIL",
}
MODEL_SIDE = ("adapters", "distill", "weights", "model", "cost", "engine", "run", "export", "predict", "single")


def files_of(room):
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def imports_of(path):
    """(top-level package, our room or None) of everything that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            rooms = [f"{node.module}.{alias.name}" for alias in node.names]
            names = rooms if node.module == "idat_tune" else [node.module]
        else:
            continue
        for name in names:
            parts = name.split(".")
            found.add((parts[0], parts[1] if parts[0] == "idat_tune" and len(parts) > 1 else None))
    return found


def test_every_module_has_its_place_in_the_house():
    rooms = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms - {"__init__"} == set(HOUSE)


@pytest.mark.parametrize("room", HOUSE)
def test_a_room_imports_only_rooms_above_it_and_what_it_may(room):
    order = list(HOUSE)
    above = set(order[: order.index(room) + 1]) | {"__version__"}
    allowed = set(HOUSE[room].split()) | set(sys.stdlib_module_names) | {"idat_tune"}
    for path in files_of(room):
        for package, ours in imports_of(path):
            assert package in allowed, f"{path.name} imports {package}, which {room} may not"
            assert ours is None or ours in above, f"{path.name} imports {ours}, which does not stand above {room}"


@pytest.mark.parametrize("room", HOUSE)
def test_every_file_opens_with_one_sentence(room):
    for path in files_of(room):
        text = ast.get_docstring(ast.parse(path.read_text()))
        assert text, path
        assert text.split("\n\n")[0].rstrip().endswith("."), path


def loaded_after(statement):
    """Top-level packages in memory after a statement in a fresh interpreter."""
    script = f"import sys; {statement}; print(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    loaded = loaded_after("import idat_tune, idat_tune.config, idat_tune.space, idat_tune.tasks")
    assert not loaded & {"torch", "ray", "mlflow", "optuna", "timm", "pyarrow", "numpy"}


def test_a_search_can_be_planned_without_anything_heavy():
    loaded = loaded_after("import idat_tune.cli, idat_tune.search")
    assert not loaded & {"torch", "ray", "mlflow", "optuna", "timm"}


def test_the_model_side_loads_neither_ray_nor_mlflow_nor_optuna():
    statement = "import " + ", ".join(f"idat_tune.{room}" for room in MODEL_SIDE)
    assert not loaded_after(statement) & {"ray", "mlflow", "optuna", "rich", "typer"}


def test_a_seat_and_what_it_knows_of_its_host_load_nothing_heavy():
    program = "import sys, idat_tune.worker.seat, idat_tune.worker.pool; print(*{'torch', 'timm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
