"""Search spaces at random: each is refused in one sentence, or all that it can propose can be run."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idat_tune import reading
from idat_tune import space as spaces
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.search.config import SearchConfig
from idat_tune.search.plan import Plan
from idat_tune.space import Choice

SWEEP = settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
VALUES = {
    "student": ["vit_base", "swin_base", "glyph_base"],
    "teacher": ["none", "vit_small", "swin_small", "glyph_small"],
    "adapter.kind": ["ssf", "repadapter", "vpt_deep", "lora"],
    "adapter.hidden_dim": [2, 3, 4, 5, 8],
    "distill.loss": ["kl", "mse", "feature"],
    "epochs": [1, 2, 5, 20],
    "optim.warmup_epochs": [0, 1, 3, 6],
    "optim.lr": [0.001, "1e-2", 0.5],
    "protocol": ["clean", "paper"],
}
NUMBERS = [key for key, values in VALUES.items() if not isinstance(values[0], str)]
KEYS = st.sampled_from([*VALUES, *VALUES, "optim.rl"])


def some(key):
    return st.lists(st.sampled_from(VALUES.get(key, [1, 2])), min_size=1, max_size=3, unique_by=str)


@st.composite
def conditions(draw):
    keys = draw(st.lists(KEYS, min_size=1, max_size=2, unique=True))
    return {key: draw(some(key)) for key in keys}


@st.composite
def domains(draw, key, conditional):
    found = {"choice": draw(some(key))}
    if key in NUMBERS and draw(st.booleans()):
        bounds = draw(st.lists(st.sampled_from(VALUES[key]), min_size=2, max_size=2))
        kind = "log_uniform" if key == "optim.lr" else "int_uniform"
        found = {kind: sorted(bounds, key=float)}
    words = draw(st.lists(st.sampled_from(["when", "unless"]), min_size=conditional, max_size=1))
    return found | {word: draw(conditions()) for word in words}


@st.composite
def contents(draw):
    """What a file may say: sound in most of its parts, so that much of it comes through."""
    searched = draw(st.lists(KEYS, min_size=1, max_size=5, unique=True))
    params = {}
    for key in searched:
        count = draw(st.sampled_from([1, 1, 1, 2]))
        several = [draw(domains(key, count - 1)) for _ in range(count)]
        params[key] = several if count > 1 else several[0]
    fixed = {key: draw(st.sampled_from(VALUES.get(key, [1]))) for key in draw(st.lists(KEYS, max_size=2, unique=True))}
    start = [{key: draw(st.sampled_from(VALUES.get(key, [1])))} for key in draw(st.lists(KEYS, max_size=1))]
    return {"params": params, "fixed": fixed, "start": start}


def check(sentence):
    assert sentence.isprintable(), sentence
    assert len(sentence) < 1000, sentence


def planned(content):
    """The plan of a search in a space; None if it is refused, as it must be: in a sentence."""
    try:
        space = spaces.parse(content, "made")
        return Plan.checked(SearchConfig.of("dtd", name="x", space=space, trials=4, out=Path("none")))
    except BadInput as failure:
        return check(str(failure))


@SWEEP
@given(content=contents())
def test_what_a_space_that_is_taken_proposes_can_be_run(content):
    plan = planned(content)
    if plan:
        assert spaces.parse(plan.config.space) == spaces.parse(content, "made")
    generator = random.Random(0)

    def ask(label, domain):
        if isinstance(domain, Choice):
            return generator.choice(domain.values)
        if domain.integer:
            return generator.randint(domain.low, domain.high)
        return generator.uniform(domain.low, domain.high)

    for _ in range(60 if plan else 0):
        point = plan.space.propose(ask)
        assert RunConfig.for_task("dtd", point).flat().items() >= point.items()
        keys = [param.key for param in plan.space.params if param.active(point)]
        assert len(set(keys)) == len(keys), point


def test_enough_of_the_spaces_made_here_are_taken_to_say_something():
    taken = []

    @SWEEP
    @given(content=contents())
    def count(content):
        taken.append(planned(content) is not None)

    count()
    assert sum(taken) > 40


@SWEEP
@given(data=st.data())
def test_a_shipped_space_with_slips_of_the_keyboard_is_taken_or_refused_in_a_sentence(data):
    text = (spaces.folder() / f"{data.draw(st.sampled_from(spaces.named()))}.yaml").read_text()
    story = min(at for word in ("\nparams:", "\narms:") if (at := text.find(word)) >= 0)
    for _ in range(data.draw(st.integers(1, 3))):
        first = data.draw(st.integers(story, max(story, len(text))))
        last = min(len(text), first + data.draw(st.integers(0, 4)))
        slip = data.draw(
            st.sampled_from(
                ["", "[", "]", "{", "}", ":", ",", "-", "0", "e", "\t", "\n", " ", "&a", "*a", "!", "'", "#", "\x00"]
            )
        )
        text = text[:first] + slip + text[last:]
    try:
        found = spaces.parse(reading.yaml_value(text))
        assert found.params or found.arms
    except BadInput as failure:
        check(str(failure))


@pytest.mark.parametrize(
    "value", [None, 3, "x", [], [[]], {}, {"params": None}, {"params": []}, {1: 2}, {"params": {1: {}}}]
)
def test_what_is_no_space_at_all_is_refused(value):
    with pytest.raises(BadInput):
        spaces.parse(value)
