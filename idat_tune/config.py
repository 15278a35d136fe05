"""RunConfig: one run as a frozen, validated value with dotted keys."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from idat_tune import backbones, recipes, tasks
from idat_tune.backbones import NO_TEACHER
from idat_tune.errors import BadInput, shown, unknown
from idat_tune.kinds import KINDS
from idat_tune.reading import scalar
from idat_tune.settings import Settings

MOST_EPOCHS = 10**6  # of this and the next: more cannot be meant, and would end in an overflow or without memory
MOST_AT_ONCE = 2**16
COOLDOWN_EPOCHS = 10  # that the paper's protocol runs at the minimal learning rate, after the nominal ones
_OF_LOGITS = ("standardise", "target")  # settings of the losses that compare logits, of `distill`
_OF_LOSS = {"kl": ("direction", "temperature", "square_temperature", *_OF_LOGITS), "feature": ()}


class AdapterConfig(Settings):
    """What trains beside the head, alike in student and teacher; `kinds.KINDS` says which kind uses what."""

    kind: str = "sequential"
    hidden_dim: int = Field(
        4, ge=1, le=MOST_AT_ONCE, description="width of a bottleneck, rank of an update, number of prompts"
    )
    scale: float = Field(0.1, ge=0, description="factor on what is added; for lora it is alpha / rank")
    init: Literal["trunc_normal", "zero_up"] = "trunc_normal"
    dropout: float = Field(
        0.0, ge=0, lt=1, description="of an adapter's hidden numbers; published with 0.1 where it is used"
    )
    targets: Literal["qv", "qkv", "all"] = Field(
        "qv", description="what lora updates: queries and values, keys too, or all linear layers of a block"
    )

    @field_validator("kind", mode="before")
    @classmethod
    def _known_kind(cls, name: object) -> object:
        if name not in KINDS:
            raise unknown("adapter.kind", name, KINDS)
        return name

    @model_validator(mode="after")
    def _even(self) -> Self:
        if KINDS[self.kind].hidden_even and self.hidden_dim % 2:
            raise BadInput(
                f"adapter.hidden_dim cannot be {self.hidden_dim}: {self.kind} splits it into 2 groups; make it even"
            )
        return self


class DistillConfig(Settings):
    """How the teacher's logits pull the student's, and the student's the teacher's."""

    loss: Literal["kl", "mse", "mae", "cos", "feature"] = "kl"
    direction: Literal["teacher_student", "student_teacher"] = Field(
        "teacher_student", description="of kl: KL(teacher || student), as released, or the other way round"
    )
    temperature: float = Field(5.0, gt=0, description="softens both distributions; only kl uses it")
    weight: float = Field(1.0, ge=0, description="lambda, the factor on the distillation loss")
    square_temperature: bool = Field(
        False, description="multiply kl by T squared; off in the released code, always so with standardise"
    )
    standardise: bool = Field(
        False, description="compare (y - mean) / std over each image's classes; of losses on logits"
    )
    target: Literal["teacher", "mean"] = Field(
        "teacher", description="mean: both models learn from the mean of their logits; of losses on logits"
    )
    detach_teacher: bool = Field(False, description="let the teacher learn from its labels alone")
    ramp_epochs: int = Field(
        0, ge=0, le=MOST_EPOCHS, description="epochs in which lambda rises linearly, step by step, from 0 to weight"
    )
    stop_epoch: int = Field(
        0, ge=0, le=MOST_EPOCHS, description="first epoch without distillation; 0 keeps it to the end"
    )

    @model_validator(mode="after")
    def _of_logits(self) -> Self:
        if self.loss == "feature" and (self.standardise or self.target == "mean"):
            raise BadInput(
                f"distill.{'standardise' if self.standardise else 'target mean'} is about logits, which distill.loss "
                "feature does not compare; take one of kl, mse, mae, cos, or leave it away"
            )
        return self


class GistConfig(Settings):
    """A token that learns beside the class token, in student and teacher, over any kind of adapter; ViTs alone."""

    token: bool = Field(False, description="whether there is one; it stays in the sequence after training")
    ce_weight: float = Field(0.5, ge=0, description="factor on the cross-entropy of its logits")
    kl_weight: float = Field(0.75, ge=0, description="factor on KL between its and the class token's, both ways")
    temperature: float = Field(3.0, gt=0, description="softens both in the KL")


class PaceConfig(Settings):
    """Noise on what adapters add, and two passes kept near each other, while training; over kinds that add, in ViTs."""

    weight: float = Field(0.0, ge=0, description="factor on the squared difference of both logits; 0: no PACE")
    sigma: float = Field(1.2, gt=0, description="of the noise in the second block; less in later ones")
    mode: Literal["each", "fast", "lazy"] = Field(
        "each", description="second pass in each step, none (the logits of the last epoch instead), or in few steps"
    )
    every: int = Field(2, ge=1, le=MOST_AT_ONCE, description="with lazy, one step in so many has a second pass")

    @property
    def passes(self) -> float:
        """Forward and backward passes of a step, on average."""
        extra = {"each": 1.0, "fast": 0.0, "lazy": 1 / self.every}[self.mode]
        return 1 + extra if self.weight else 1


class OptimConfig(Settings):
    """AdamW, timm's cosine schedule, which changes the learning rate once per epoch, and how hard the labels are."""

    lr: float = Field(5e-3, gt=0)
    weight_decay: float = Field(5e-5, ge=0, description="on matrices only")
    warmup_epochs: int = Field(10, ge=0, le=MOST_EPOCHS)
    warmup_lr: float = Field(1e-7, ge=0, description="learning rate of epoch 0")
    min_lr: float = Field(1e-8, ge=0)
    # Not of `distill`: it changes what a student without a teacher learns.
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of a label that all classes divide, for the student with or without teacher"
    )


class ModelConfig(Settings):
    """What holds for both backbones."""

    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth of the last block; rises from 0")


class RunConfig(Settings):
    """One joint training of a student and a teacher (or of a student alone).

    Written and read as a flat mapping with dotted keys, such as `{"task": "dtd", "optim.lr": 1e-3}`.
    Defaults are the paper's; `RunConfig.for_task` fills in those that the paper sets per task.
    """

    WAYS_OUT: ClassVar[Mapping[str, str]] = {"teacher": f"; '{NO_TEACHER}' trains without one"}

    task: str
    student: str = "vit_base"
    teacher: str = Field("vit_small", description="'none' trains the adapter alone")
    adapter: AdapterConfig = AdapterConfig()
    distill: DistillConfig = DistillConfig()
    gist: GistConfig = GistConfig()
    pace: PaceConfig = PaceConfig()
    optim: OptimConfig = OptimConfig()
    model: ModelConfig = ModelConfig()
    epochs: int = Field(100, ge=1, le=MOST_EPOCHS)
    batch_size: int = Field(32, ge=1, le=MOST_AT_ONCE)
    seed: int = Field(0, ge=0, lt=2**31)
    precision: Literal["auto", "bf16", "fp32"] = Field("auto", description="auto: bf16 where it is faster")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:[0-9]{1,3})?)$")
    image_size: int | None = Field(
        None, ge=8, le=2048, description="pixels both ways, for student and teacher; the backbones' own unless given"
    )
    protocol: Literal["clean", "paper"] = Field(
        "clean", description="paper: 10 more epochs, all images, best epoch on test"
    )

    @field_validator("task")
    @classmethod
    def _canonical_task(cls, name: str) -> str:
        return tasks.get(name).name

    @field_validator("student")
    @classmethod
    def _known_student(cls, name: str) -> str:
        return backbones.check(name)

    @field_validator("teacher")
    @classmethod
    def _known_teacher(cls, name: str) -> str:
        return NO_TEACHER if name.lower() == NO_TEACHER else backbones.check(name)

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.optim.warmup_epochs >= self.epochs:
            raise BadInput(
                f"optim.warmup_epochs {self.optim.warmup_epochs} leaves none of {self.epochs} epochs to train in; "
                "lower it or raise epochs"
            )
        return self

    @model_validator(mode="after")
    def _ramp_ends(self) -> Self:
        if self.distill.ramp_epochs > self.epochs:
            raise BadInput(
                f"distill.ramp_epochs {self.distill.ramp_epochs} goes beyond {self.epochs} epochs, so that lambda "
                "would never reach distill.weight; lower it or raise epochs"
            )
        return self

    @model_validator(mode="after")
    def _standardises(self) -> Self:
        if self.distill.standardise and not self.alone and self.classes == 2:
            raise BadInput(
                f"distill.standardise needs 3 classes or more, and {self.task} has 2: of two logits it leaves only "
                "which is larger, so nothing would be learnt; leave it away"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        kind = KINDS[self.adapter.kind]
        for role, name in (("student", self.student), ("teacher", self.teacher)):
            if name != NO_TEACHER and backbones.family(name) not in kind.families:
                can = [other for other, known in KINDS.items() if backbones.family(name) in known.families]
                raise BadInput(
                    f"adapter.kind {self.adapter.kind} cannot sit in {role} {name}; what can: {', '.join(can)}"
                )
            if name != NO_TEACHER and self.gist.token and backbones.family(name) != "vit":
                raise BadInput(
                    f"gist.token cannot stand in {role} {name}, which has no class token; take a ViT, or leave it away"
                )
        self._fits_pace()
        if self.alone and self.distill.loss == "feature":
            raise BadInput("distill.loss feature needs a teacher, and teacher is none; name one or take another loss")
        ours, theirs = backbones.family(self.student), backbones.family(self.teacher)
        if self.distill.loss == "feature" and ours != theirs:
            raise BadInput(
                f"distill.loss feature compares tokens, and a {ours} has others than a {theirs}; take a teacher like "
                f"student {self.student}, or another loss"
            )
        return self

    def _fits_pace(self) -> None:
        if not self.pace.weight:
            return
        if not KINDS[self.adapter.kind].adds:
            can = [name for name, known in KINDS.items() if known.adds]
            raise BadInput(
                f"pace.weight is for kinds that add to what is frozen, and adapter.kind {self.adapter.kind} does not; "
                f"take one of {', '.join(can)}, or leave it away"
            )
        if self.distill.loss == "feature":
            raise BadInput("pace.weight and distill.loss feature cannot go together; leave one away")
        for role, name in (("student", self.student), ("teacher", self.teacher)):
            if name != NO_TEACHER and backbones.family(name) != "vit":
                raise BadInput(f"pace.weight is for ViTs, and {role} {name} is none; take one, or leave it away")

    @classmethod
    def for_task(cls, name: str, changes: Mapping[str, Any] | None = None, recipe: str | None = None) -> Self:
        """The paper's config for a task, with a recipe's settings, if one is named, and `changes` on top.

        Unless `changes` say otherwise, warm-up takes a tenth of the epochs (10 of 100 in the paper) and at least one
        where there are two, or short runs would start at the full rate; and the teacher is the one that goes with the
        student.

        Raises:
            BadInput: unknown task, recipe or key, or a value out of range.
        """
        task = tasks.get(name)
        for key, value in (changes or {}).items():
            cls.check_key(key)
            cls.check_plain(key, value)
        changes = recipes.under(recipe, changes or {})
        student = changes.get("student", task.student)
        flat: dict[str, Any] = {
            "task": task.name,
            "student": student,
            "teacher": backbones.default_teacher(student),
            "epochs": task.epochs,
            "optim.lr": task.lr,
            "optim.weight_decay": task.weight_decay,
            "model.drop_path": task.drop_path,
            **changes,
        }
        epochs = flat["epochs"]
        if "optim.warmup_epochs" not in flat and re.fullmatch("[0-9]{1,9}", shown(epochs)):
            flat["optim.warmup_epochs"] = max(1, int(epochs) // 10) if int(epochs) > 1 else 0
        return cls.from_flat(flat)

    def without_teacher(self) -> Self:
        """A copy that trains the adapter alone."""
        loss = {"distill.loss": "kl"} if self.distill.loss == "feature" else {}
        return self.updated({"teacher": NO_TEACHER, **loss})

    @property
    def selected_on_test(self) -> bool:
        """Whether its result was chosen by looking at the test split, as the paper's protocol does."""
        return self.protocol == "paper"

    @property
    def total_epochs(self) -> int:
        """Epochs that are run: the nominal ones and, under the paper's protocol, its cool-down."""
        return self.epochs + (COOLDOWN_EPOCHS if self.protocol == "paper" else 0)

    def distills(self, epoch: int) -> bool:
        """Whether distillation is computed in an epoch, counted from 0."""
        stopped = 0 < self.distill.stop_epoch <= epoch
        return self.distill.weight > 0 and not self.alone and not stopped

    def distill_weight(self, epoch: int) -> float:
        """Lambda at an epoch's first step: `distill.weight` * min(1, epoch / `distill.ramp_epochs`)."""
        if not self.distills(epoch):
            return 0.0
        rising = epoch < self.distill.ramp_epochs
        return self.distill.weight * epoch / self.distill.ramp_epochs if rising else self.distill.weight

    def distill_rise(self, epoch: int) -> float:
        """By how much lambda grows over an epoch, as much with each of its steps."""
        rising = self.distills(epoch) and epoch < self.distill.ramp_epochs
        return self.distill.weight / self.distill.ramp_epochs if rising else 0.0

    def in_use(self) -> dict[str, Any]:
        """The flat settings that make a difference to this run; what its kind of adapter or its loss ignores is out."""
        adapter = {"adapter.kind", *KINDS[self.adapter.kind].uses}
        distill = set() if self.alone else {"distill.weight"}
        if self.distills(0):
            distill |= {f"distill.{name}" for name in ("loss", "detach_teacher", "ramp_epochs", "stop_epoch")}
            distill |= {f"distill.{name}" for name in _OF_LOSS.get(self.distill.loss, _OF_LOGITS)}
        rooms = {"adapter": adapter, "distill": distill}
        return {key: value for key, value in self.flat().items() if key in rooms.get(key.partition(".")[0], {key})}

    @property
    def classes(self) -> int:
        """Classes of the task."""
        return tasks.get(self.task).classes

    @property
    def alone(self) -> bool:
        """Whether the student learns without a teacher."""
        return self.teacher == NO_TEACHER


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """`["optim.lr=1e-3", ...]` as a flat mapping; values are read as YAML reads a word or a number.

    Raises:
        BadInput: no `=`, an unknown key, or a key given twice.
    """
    flat: dict[str, Any] = {}
    for assignment in assignments:
        key, sign, value = assignment.partition("=")
        key = key.strip()
        if not sign:
            raise BadInput(f"'{shown(assignment)}' sets nothing; write it as key=value, for example optim.lr=1e-3")
        RunConfig.check_key(key)
        if key in flat:
            raise BadInput(f"setting '{key}' is given twice; keep one of {shown(flat[key])} and {shown(value)}")
        flat[key] = scalar(value)
        RunConfig.check_plain(key, flat[key])
    return flat
