"""Which job of a sweep is next: parents first, whatever fails, and no event looks at all jobs."""

import random

import pytest

from tf_pruneinit.config.execution import Execution
from tf_pruneinit.config.experiment import Config
from tf_pruneinit.errors import RunError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.sweeps import plan as plans
from tf_pruneinit.sweeps.launchers import schedule as schedules
from tf_pruneinit.sweeps.launchers.events import COMPLETE, ELSEWHERE, FAILED, LOST, NOTE, STARTED, STOPPED, Event
from tf_pruneinit.sweeps.launchers.schedule import Schedule, Work, run_jobs
from tf_pruneinit.sweeps.plan import Plan


def plan(**parents):
    """Jobs and, as one text, what each begins with."""
    return Plan(dict.fromkeys(parents), frozenset(), {address: tuple(names) for address, names in parents.items()})


def ready(schedule):
    """All that can run just now, in order; nothing is blocked."""
    assert not list(schedule.blocked())
    return list(iter(schedule.next, None))


def test_each_comes_once_and_after_what_it_begins_with():
    schedule = Schedule(plan(a="", b="a", c="ab", d=""), "abcd", ())
    assert ready(schedule) == ["a", "d"]
    assert ready(schedule) == []
    schedule.end("a")
    assert ready(schedule) == ["b"]
    schedule.end("b")
    assert ready(schedule) == ["c"]
    schedule.end("d")
    assert schedule.is_open
    schedule.end("c")
    assert not schedule.is_open


def test_what_is_complete_before_is_waited_for_by_nobody():
    assert ready(Schedule(plan(a="", b="a", c="b"), "bc", ())) == ["b"]


def test_children_of_a_failed_one_are_blocked_in_order_when_all_their_parents_have_ended():
    schedule = Schedule(plan(a="", b="a", c="", d="b", e="ac", f="c"), "abcdef", ())
    assert ready(schedule) == ["a", "c"]
    schedule.end("a", failed=True)
    assert list(schedule.blocked()) == [("b", "a"), ("d", "b")]
    schedule.end("c")
    assert list(schedule.blocked()) == [("e", "a")]
    assert ready(schedule) == ["f"]
    schedule.end("f")
    assert not schedule.is_open


def test_children_of_one_that_failed_before_are_blocked_at_once():
    schedule = Schedule(plan(a="", b="a", c="b", d=""), "bcd", ["a"])
    assert list(schedule.blocked()) == [("b", "a"), ("c", "b")]
    assert ready(schedule) == ["d"]


def first(schedule):
    assert not list(schedule.blocked())
    return schedule.next()


def test_one_whose_process_ended_comes_before_all_others():
    schedule = Schedule(plan(a="", b="", c=""), "abc", ())
    assert first(schedule) == "a"
    schedule.retry("a")
    assert ready(schedule) == ["a", "b", "c"]


def test_one_that_another_sweep_runs_is_next_again_later(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(schedules.time, "monotonic", lambda: now[0])
    schedule = Schedule(plan(a="", b=""), "ab", ())
    assert first(schedule) == "a"
    schedule.postpone("a")
    assert ready(schedule) == ["b"]
    now[0] += 4
    assert ready(schedule) == ["a"]


@pytest.mark.parametrize("seed", range(20))
def test_all_come_to_an_end_whatever_fails(seed):
    chance = random.Random(seed)
    names = [f"job-{n}" for n in range(60)]
    parents = {name: tuple(chance.sample(names[:n], min(n, chance.randrange(3)))) for n, name in enumerate(names)}
    whole = Plan(dict.fromkeys(names), frozenset(), parents)
    before = set(chance.sample(names, 5))
    schedule = Schedule(whole, [name for name in names if name not in before], before)
    complete, failed, blocked = set(), set(), set()
    while schedule.is_open:
        for name, parent in schedule.blocked():
            assert parent in before | failed | blocked
            blocked.add(name)
        several = list(iter(schedule.next, None))
        chance.shuffle(several)
        for name in several:
            assert complete.issuperset(parents[name])
            if chance.random() < 0.1:
                failed.add(name)
                schedule.end(name, failed=True)
            else:
                complete.add(name)
                schedule.end(name)
    assert before | blocked | failed | complete == set(names)
    assert not (before | blocked | failed) & complete
    assert all((before | blocked | failed).intersection(parents[name]) for name in blocked)


class Counted(dict):
    """Counts how often it is looked into."""

    looks = 0

    def __getitem__(self, key):
        Counted.looks += 1
        return super().__getitem__(key)


@pytest.mark.parametrize("event", ["next", "complete", "fail", "retry", "postpone"])
def test_an_event_looks_at_as_much_whatever_the_number_of_jobs(event, monkeypatch):
    """Runs of which each seed has a few that wait for a dense one."""
    looks = []
    for seeds in (10, 1000):
        parents = {}
        for seed in range(seeds):
            parents |= {f"dense-{seed}": ()} | {f"pruned-{seed}-{n}": (f"dense-{seed}",) for n in range(3)}
        schedule = Schedule(Plan(dict.fromkeys(parents), frozenset(), parents), list(parents), ())
        for name in ("_parents", "_rank"):
            monkeypatch.setattr(schedule, name, Counted(getattr(schedule, name)))
        address = first(schedule)
        Counted.looks = 0
        if event in ("complete", "fail"):
            schedule.end(address, failed=event == "fail")
        elif event != "next":
            getattr(schedule, event)(address)
        blocked = list(schedule.blocked())
        assert len(blocked) == 3 * (event == "fail")
        for _ in range(4):
            schedule.next()
        looks.append(Counted.looks)
    assert looks[0] == looks[1] < 20


class ScriptedPool:
    """Runs one job at a time, which ends as the script says."""

    def __init__(self, *kinds):
        self.kinds = list(kinds)
        self.address = ""

    @property
    def has_room(self):
        return not self.address

    def start(self, job):
        self.address = job.address
        return Event(STARTED, job.address)

    def events(self):
        if self.address:
            address, self.address = self.address, ""
            yield Event(self.kinds.pop(0), address, "the cause")


class TestRunJobs:
    @pytest.fixture
    def work(self, tmp_path, monkeypatch):
        monkeypatch.setattr(schedules, "SECONDS_UNTIL_RETRY", 0.0)
        configs = [Config(seed=seed) for seed in (0, 1)]
        jobs = {config.address: plans.Job(config, (), True) for config in configs}
        plan = Plan(jobs, frozenset(jobs), dict.fromkeys(jobs, ()))
        return Work(plan, list(jobs), (), Execution(workdir=str(tmp_path)), str(tmp_path))

    def told(self, work, *kinds):
        events = [event for event in run_jobs(work, ScriptedPool(*kinds)) if event.kind != NOTE or event.text]
        return [(event.kind, work.todo.index(event.address) if event.address else None) for event in events]

    def test_a_job_that_another_sweep_runs_is_started_again(self, work):
        expected = [(STARTED, 0), (ELSEWHERE, 0), (STARTED, 0), (COMPLETE, 0), (STARTED, 1), (COMPLETE, 1)]
        assert sorted(self.told(work, ELSEWHERE, COMPLETE, COMPLETE)) == sorted(expected)

    def test_a_job_whose_process_is_lost_is_retried_before_the_others(self, work):
        expected = [(STARTED, 0), (NOTE, None), (STARTED, 0), (COMPLETE, 0), (STARTED, 1), (COMPLETE, 1)]
        assert self.told(work, LOST, COMPLETE, COMPLETE) == expected

    def test_a_job_whose_process_is_lost_twice_has_failed(self, work):
        expected = [(STARTED, 0), (NOTE, None), (STARTED, 0), (FAILED, 0), (STARTED, 1), (COMPLETE, 1)]
        assert self.told(work, LOST, LOST, COMPLETE) == expected
        run = run_directory.existing(work.execution.workdir, work.plan.jobs[work.todo[0]].config)
        assert run is not None and run.failure == "the cause"

    def test_what_stops_every_job_ends_the_sweep(self, work):
        with pytest.raises(RunError, match="the cause"):
            self.told(work, STOPPED)
