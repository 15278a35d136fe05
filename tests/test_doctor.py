"""What doctor sums up: what works now, what does not, the next step."""

from idat_tune.doctor import Finding, summary


def findings(**ok):
    """All is well but for what is named; `a_b` stands for `a b`."""
    names = {"torch": True, "CUDA": True, "VTAB-1K tasks": True, "own tasks": False}
    names |= {"weights vit_base": True, "weights vit_small": True}
    names |= {name.replace("_tasks", " tasks").replace("weights_", "weights "): value for name, value in ok.items()}
    needed = {"torch"}
    return [Finding(name, value, "", f"mend {name}", name in needed) for name, value in names.items()]


def test_what_every_search_needs_comes_first():
    said = summary(findings(torch=False, CUDA=False), "idat-tune")
    assert said == "Nothing can be searched before this is mended: torch; the next step: mend torch."


def test_on_a_bare_machine_the_embedded_tasks_are_the_next_step():
    bare = findings(CUDA=False, **{"VTAB-1K tasks": False}, weights_vit_base=False, weights_vit_small=False)
    assert summary(bare, "idat-tune") == (
        "What can be searched now: the embedded tasks; not there yet: VTAB-1K tasks, own tasks, CUDA, weights of "
        "vit_base and vit_small (the lines above have the way); the next step: idat-tune search --task digits"
    )


def test_images_of_vtab_without_weights_cannot_be_searched():
    assert "now: the embedded tasks; not" in summary(findings(weights_vit_base=False), "idat-tune")
    assert "now: the embedded tasks, VTAB-1K tasks; not" in summary(findings(), "idat-tune")
    assert summary(findings(), "idat-tune").endswith("idat-tune search --task cifar")


def test_own_images_come_first_and_on_an_embedded_student_where_there_is_no_other(monkeypatch):
    from idat_tune import data, tasks

    monkeypatch.setattr(data, "own_tasks", lambda: [tasks.Task("birds", "birds", "own", 3, 9, 5e-3, 5e-5, 0.0)])
    own = {"own tasks": True}
    assert summary(findings(**own), "idat-tune").endswith("idat-tune search --task birds")
    lacking = summary(findings(**own, weights_vit_small=False), "idat-tune")
    assert lacking.endswith("idat-tune search --task birds --set student=glyph_base")
