"""What a search does next, in every stage: a pure function of its plan, its journal and the trials that run."""

from collections.abc import Collection, Generator, Iterator, Sequence

from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FINAL, TEST, Journal, TrialRecord
from idat_tune.journal.state import EXPLORED, OPENED, WINNER, Decision
from idat_tune.search.confirm import Confirmation, arm_record, arms, best_explored, config_of, confirm_job, contender
from idat_tune.search.plan import ALONE, DEFAULT, LINEAR, Job, Plan, jobs_of, test_id
from idat_tune.search.plan import WINNER as WINNER_ARM


class Propose:
    """The sampler is to propose a trial."""


PROPOSE = Propose()
Step = Job | Decision | Propose


def next_step(plan: Plan, journal: Journal, running: Sequence[Job]) -> Step | None:
    """A trial to run, a proposal to be made, or a decision to be written down, after which to ask once more.

    None while what is next depends on one that is running; where nothing runs, all is done. A resumed search asks
    the same of a longer journal. What waits for no decision fills the gaps in which the last trials of a stage run.
    """
    return next(_steps(plan, journal, running), None)


def ahead(plan: Plan, journal: Journal, running: Sequence[Job], most: int) -> int:
    """How many more trials could start now, were there workers for all of them; `most` is the highest answer."""
    running = [*running]
    for count in range(most):
        step = next_step(plan, journal, running)
        if isinstance(step, Propose):
            explored = [record.arms for record in journal.of(EXPLORE)]
            explored += [job.arms for job in running if job.stage == EXPLORE]
            trials = sum(LINEAR not in arms for arms in explored)
            return min(count + max(plan.trials - trials, 0), most)
        if not isinstance(step, Job):
            return count
        running.append(step)
    return most


def _steps(plan: Plan, journal: Journal, running: Sequence[Job]) -> Iterator[Step]:
    """What could be next, the most urgent first."""
    state, exploring = journal.state, any(job.stage == EXPLORE for job in running)
    if state.undecided:
        first = _left(plan.first_jobs(), journal, running)
        yield from (job for job in first if state.ended_by is None or not is_optional(job))
        if state.ended_by is None:
            yield PROPOSE
    if exploring:
        yield from _gaps(plan, journal, running)
        return
    if state.undecided:
        yield Decision(EXPLORED)
    if state.winner is None:
        decided = yield from _choose(plan, journal, running)
        if not decided:
            return  # every config failed, so final runs would too
    else:
        yield from _finals(final_jobs(plan, journal), journal, running)
    yield from _gaps(plan, journal, running)
    if not running:
        yield from _test(plan, journal)


def _choose(plan: Plan, journal: Journal, running: Sequence[Job]) -> Generator[Step, None, bool]:
    """The runs of the confirm stage, and when none is left the winner; returns whether there may yet be one."""
    if not plan.config.confirm.folds:
        found = best(journal)
        if found:
            yield Decision(WINNER, {"trial": found.id})
        return found is not None
    confirming = [job for job in running if job.stage == CONFIRM]
    confirmation = Confirmation(plan, journal)
    job = confirmation.next_job([(job.contender, job.fold) for job in confirming])
    if job:
        yield job
    if job or confirming:
        return True
    choice = confirmation.choice()
    if choice:
        yield Decision(WINNER, {"trial": choice.winner})
    return choice is not None


def _gaps(plan: Plan, journal: Journal, running: Sequence[Job]) -> Iterator[Job]:
    """What will be run whoever wins: the default on all splits once it was explored, and the arms' final runs."""
    default = arm_record(journal, DEFAULT)
    if journal.state.undecided and default:
        job = jobs_of(EXPLORE, "arm", {DEFAULT: plan.config_of({})})[0]
        confirms = [confirm_job(job.id, fold, job.config) for fold in range(plan.config.confirm.folds)]
        yield from _left(confirms, journal, running)
    yield from _finals(arm_finals(plan, journal), journal, running)


def _test(plan: Plan, journal: Journal) -> Iterator[Step]:
    """Open the test split for the first time, or once more on request; or finish an opening that was cut short."""
    state, chosen = journal.state, winner(plan, journal)
    if chosen is None or not students(plan, journal):
        return
    if is_cut_short(journal) and not state.reopen:
        yield from _left([plan.test_job(len(state.openings), config_of(chosen))], journal, [])
    elif state.to_open:
        yield Decision(OPENED, {"winner": chosen.id, "by": "--reopen-test" if state.openings else "final run"})


def _finals(jobs: Collection[Job], journal: Journal, running: Sequence[Job]) -> list[Job]:
    """Final runs that are left; once the test is over, of these only whose tensors are wanted and gone."""
    left = _left(jobs, journal, running)
    over = not journal.state.to_open and not is_cut_short(journal)
    return [job for job in left if job.id in journal.state.lost] if over else left


def is_optional(job: Job) -> bool:
    """Whether a trial that was not begun may be left out: a starting point or a hint, but no arm."""
    return job.stage == EXPLORE and not job.arms


def _left(jobs: Collection[Job], journal: Journal, running: Sequence[Job]) -> list[Job]:
    """Those that neither run nor are done.

    A config that failed stays failed; a failed final run or test is tried again by the next driver of a search that is
    not finished. So is a final run whose tensors are wanted and gone.
    """
    state, taken = journal.state, {job.id for job in running}
    done = {r.id for r in journal.records if r.stage in (EXPLORE, CONFIRM) or r.status == COMPLETE}
    taken |= (done - state.lost) | state.recorded
    return [job for job in jobs if job.id not in taken]


def winner(plan: Plan, journal: Journal) -> TrialRecord | None:
    """The trial that was chosen; None while the search is exploring or confirming."""
    chosen = journal.state.winner
    return contender(journal, chosen, plan.seed) if chosen else None


def arm_finals(plan: Plan, journal: Journal) -> list[Job]:
    """The final runs of the arms: of the linear one once its learning rate is known, of the space's once explored."""
    linear = None if journal.state.undecided else arm_record(journal, LINEAR)
    known = [job for job in plan.arm_finals() if {DEFAULT, ALONE} & {*job.arms} or arm_record(journal, job.arms[0])]
    return [*known, *(plan.finals(LINEAR, config_of(linear), (LINEAR,)) if linear else [])]


def final_jobs(plan: Plan, journal: Journal) -> list[Job]:
    """All final runs, each config once.

    Of the winner, of it with or without its teacher, of the smallest config that is as good, and of the arms.
    """
    chosen, confirmation = winner(plan, journal), Confirmation(plan, journal)
    jobs = plan.finals(chosen.id, config_of(chosen), (WINNER_ARM,)) if chosen else []
    counterpart = confirmation.counterpart(chosen.id) if chosen else None
    jobs += plan.finals(*counterpart) if counterpart else []
    choice = confirmation.choice() if chosen else None
    jobs += plan.finals(choice.smallest, confirmation.configs[choice.smallest]) if choice else []
    of_arms = {job.config: job for job in arm_finals(plan, journal)}
    others = {job.config: job for job in reversed(jobs) if job.config not in of_arms}
    return sorted([*reversed(others.values()), *of_arms.values()], key=_shortness)


def _shortness(job: Job) -> tuple[bool, bool]:
    """What sorts long runs before short ones, so that none of the former is the last to begin."""
    return job.config.adapter.kind == LINEAR, job.config.alone


def students(plan: Plan, journal: Journal) -> list[TrialRecord]:
    """The finished final runs whose students are tested; none if the winner has none."""
    chosen = winner(plan, journal)
    if chosen is None:
        return []
    ours = {job.config for job in plan.finals(chosen.id, config_of(chosen))}
    wanted = {job.config for job in final_jobs(plan, journal)}
    done = [record for record in journal.of(FINAL) if record.status == COMPLETE]
    return [r for r in done if config_of(r) in wanted] if any(config_of(r) in ours for r in done) else []


def is_cut_short(journal: Journal) -> bool:
    """Whether the last opening was for this winner and brought no result: going on is the same opening."""
    state = journal.state
    if not state.openings or state.openings[-1]["winner"] != state.winner:
        return False
    finished = [record.id for record in journal.of(TEST) if record.status == COMPLETE]
    return test_id(len(state.openings)) not in finished


def best(journal: Journal) -> TrialRecord | None:
    """The explored trial with the best last epoch among those that ran to their end; None if there is none."""
    return max([*arms(journal), *best_explored(journal)], key=lambda record: record.score, default=None)
