"""What a user may rely on when several models share the memory."""

from __future__ import annotations

from typing import Any

import pytest

from llama_runner.gateway import errors
from llama_runner.gateway import scheduler_state as state
from tests.gateway.simulation import NEED, World


def world(*names: str, limits: state.Limits | None = None, **policies: dict[str, Any]) -> World:
    """Return a world in which memory was measured; ``a`` and ``b`` fit together, ``c`` only alone."""
    made = World([state.Policy(name, **policies.get(name, {})) for name in names], limits)
    made.measured()
    return made


def test_requests_for_a_model_that_loads_share_one_load() -> None:
    here = world("a")
    first, second = here.ask("a"), here.ask("a")
    here.work()
    assert here.starts == ["a"]
    assert {first, second} == here.granted.keys()


def test_a_load_goes_on_when_its_client_leaves_and_the_next_request_hits_it() -> None:
    here = world("a")
    first = here.ask("a")
    here.prepared("a")
    here.leave(first)
    assert not here.stops
    second = here.ask("a")
    here.ready("a")
    assert here.starts == ["a"]
    assert second in here.granted


def test_a_request_that_leaves_before_its_load_began_starts_none() -> None:
    here = world("a")
    first = here.ask("a")
    here.leave(first)
    here.work()
    assert not here.starts


def test_an_idle_model_makes_room_and_a_busy_one_does_not() -> None:
    here = world("a", "c")
    first = here.ask("a")
    here.work()
    second = here.ask("c")
    here.work()
    assert not here.stops
    here.finish(first)
    assert here.stops == ["a"]
    here.work()
    assert second in here.granted


def test_the_next_load_waits_until_the_memory_of_the_stopped_model_is_free() -> None:
    here = world("a", "c")
    first = here.ask("a")
    here.work()
    here.finish(first)
    here.ask("c")
    here.prepared("c")
    here.stopped("a")
    assert here.starts == ["a"], "not before memory was measured"
    here.available["Host"] = 50  # the driver has not given it back yet
    here.measured()
    assert here.starts == ["a"]
    assert not here.refused
    here.available["Host"] = 100
    here.later(0.3)
    assert here.starts == ["a", "c"]


def test_what_can_never_fit_is_refused_with_numbers_and_a_time_to_retry() -> None:
    here = world("a", "huge")
    request = here.ask("huge")
    here.work()
    error = here.refused[request]
    assert isinstance(error, errors.NeverFits)
    assert error.lacks == (("Host", 500, 100),)
    assert (error.status, error.retry_after) == (503, 60)
    assert "500 B on Host, where 100 B are available" in str(error)


def test_a_model_that_fits_only_without_a_pinned_one_is_refused_rather_than_waiting() -> None:
    here = world("a", "c", a={"pin": True})
    here.ask("a")
    here.work()
    here.finish(1)
    request = here.ask("c")
    here.work()
    assert isinstance(here.refused[request], errors.NeverFits)
    assert here.loaded == {"a"}


def test_requests_of_two_models_in_turn_are_collated() -> None:
    here = world("a", "c")
    order = [here.ask(model) for model in "acac"]
    here.work()
    assert here.granted.keys() == {order[0], order[2]}, "both of a, before c is loaded"
    for request in (order[0], order[2]):
        here.finish(request)
    here.work()
    assert here.granted.keys() == {order[1], order[3]}
    assert here.starts == ["a", "c"]


def test_a_model_that_is_asked_without_a_pause_does_not_starve_another() -> None:
    here = world("a", "c", limits=state.Limits(patience=10))
    here.ask("a")
    here.work()
    starving = here.ask("c")
    began = here.now
    while starving not in here.granted:
        assert here.now < began + 20
        following = here.ask("a")  # the one before has not ended: a is never idle by itself
        here.later(1)
        for request in sorted(here.granted.keys() - {following, starving}):
            here.finish(request)
            here.work()
    assert here.now - began <= 12


def test_a_queue_that_is_full_refuses_at_once() -> None:
    here = world("a", limits=state.Limits(queue=2))
    requests = [here.ask("a") for _ in range(3)]
    assert [request in here.refused for request in requests] == [False, False, True]
    assert isinstance(here.refused[requests[2]], errors.QueueFull)


def test_a_request_that_waits_for_memory_is_refused_after_the_maximum_wait() -> None:
    here = world("a", "c", limits=state.Limits(max_wait=50))
    here.ask("a")
    here.work()
    request = here.ask("c")
    here.work()
    here.later(49)
    assert request in here.scheduler.waiting
    here.later(2)
    assert isinstance(here.refused[request], errors.WaitedTooLong)


def test_a_slow_load_or_download_is_not_a_failure() -> None:
    here = world("a", limits=state.Limits(max_wait=50))
    request = here.ask("a")
    for _ in range(3):  # preparing
        here.now += 100
        here.tell(state.Tick())
    here.prepared("a")
    here.now += 100
    here.tell(state.Tick())
    here.ready("a")
    assert request in here.granted


def test_ttl_counts_from_the_end_of_the_last_request() -> None:
    here = world("a", a={"ttl": 30})
    request = here.ask("a")
    here.work()
    here.later(100)
    assert here.loaded == {"a"}
    here.finish(request)
    here.later(29)
    assert here.loaded == {"a"}
    here.later(2)
    assert not here.running


def test_keep_alive_changes_the_ttl_until_another_request_says_so() -> None:
    here = world("a", a={"ttl": 30})
    for keep_alive, lives in ((100.0, 99), (None, 99), (-1.0, 1000)):
        request = here.ask("a", keep_alive)
        here.work()
        here.finish(request)
        here.later(lives)
        assert here.loaded == {"a"}, keep_alive
    request = here.ask("a", 0.0)
    here.work()
    here.finish(request)
    assert here.stops == ["a"]


def test_a_pin_wins_over_ttl_and_keep_alive() -> None:
    here = world("a", a={"pin": True, "ttl": 1})
    request = here.ask("a", 0.0)
    here.work()
    here.finish(request)
    here.later(1000)
    assert here.loaded == {"a"}


def test_the_model_that_was_unused_for_long_and_loads_fast_is_stopped_first() -> None:
    here = world("a", "b", "c")
    for model, seconds in (("a", 100.0), ("b", 1.0)):
        request = here.ask(model)
        here.prepared(model)
        here.ready(model, seconds)
        here.finish(request)
        here.later(1)
    here.available["Host"] = 110
    here.measured()
    here.ask("c")
    here.work()
    assert here.stops == ["b"], "a was used before, but b takes a hundredth of its time to load"


def test_no_more_models_are_stopped_than_needed() -> None:
    here = world("a", "b", "d", "c")
    for model in "abd":
        here.ask(model)
        here.work()
        here.finish(here.next_id)
    here.ask("c")
    here.work()
    assert "c" in here.loaded
    assert sorted(here.stops) in (["a", "b"], ["a", "b", "d"])
    assert sum(NEED[model]["Host"] for model in here.loaded) <= 100


def test_a_failing_model_is_tried_again_once_and_then_told_and_pauses_grow() -> None:
    here = world("a")
    request = here.ask("a")
    here.prepared("a")
    here.failed("a", log=("bad tensor",))
    assert request in here.scheduler.waiting, "once more, without its client"
    pauses = []
    for _ in range(2):
        before = here.now
        while "a" not in here.running:
            here.measured()
            assert here.timer is not None
            here.now, here.timer = here.timer, None
            here.tell(state.Tick())
        pauses.append(here.now - before)
        here.failed("a", log=("bad tensor",))
        request = here.ask("a")
    assert pauses == [1, 5]
    assert isinstance(here.refused[request], errors.LoadingCrashed), "30 s are too long to wait"
    assert here.refused[request].retry_after == 30


def test_a_model_that_failed_too_often_is_refused_with_its_log_until_the_failure_expires() -> None:
    here = world("a", limits=state.Limits(backoff=(1.0,), open_for=60))
    first = here.ask("a")
    here.prepared("a")
    here.failed("a", log=("bad tensor",), permanent=True)
    told = here.refused[first]
    assert isinstance(told, errors.LoadFailed)
    assert told.log == ("bad tensor",)
    here.ask("a")
    here.now += 1
    here.measured()
    here.tell(state.Tick())
    here.failed("a", log=("bad tensor",), permanent=True)
    refused = here.refused[here.ask("a")]
    assert isinstance(refused, errors.LoadingCrashed)
    assert refused.retry_after == 60
    assert refused.log == ("bad tensor",)
    here.later(61)
    here.ask("a")
    here.work()
    assert here.next_id in here.granted, "failures expire"


def test_a_process_that_dies_takes_only_its_own_requests_and_is_started_for_the_next() -> None:
    here = world("a", "b")
    one, other = here.ask("a"), here.ask("b")
    here.work()
    here.died("a")
    assert other in here.granted
    assert one not in here.granted
    again = here.ask("a")
    here.later(1.5)
    assert again in here.granted
    assert here.starts == ["a", "b", "a"]


def test_preloading_stops_nothing_and_happens_once() -> None:
    here = world("a", "c", c={"preload": True})
    here.work()
    assert here.loaded == {"c"}
    here.ask("a")
    here.work()
    here.later(1000)
    assert here.starts == ["c", "a"]


def test_a_reload_touches_only_models_whose_launch_changed() -> None:
    here = world("a", "b")
    one, _ = here.ask("a"), here.ask("b")
    here.work()
    here.tell(state.Reload((state.Policy("a", launch="new"), state.Policy("b", pin=True))))
    assert not here.stops, "requests in progress end first"
    waits = here.ask("a")
    here.finish(one)
    here.work()
    assert here.stops == ["a"]
    assert waits in here.granted, "by the new launch"
    assert here.scheduler.slots["b"].policy.pin


def test_a_removed_model_finishes_its_requests_and_is_unknown_to_new_ones() -> None:
    here = world("a", "b")
    one = here.ask("a")
    here.work()
    here.tell(state.Reload((state.Policy("b"),)))
    assert isinstance(here.refused[here.ask("a")], errors.UnknownModel)
    assert one in here.granted
    here.finish(one)
    here.work()
    assert not here.running


def test_shutting_down_lets_requests_end_and_then_stops_what_is_left() -> None:
    here = world("a", "c")
    here.ask("a")
    here.work()
    waits = here.ask("c")
    here.tell(state.Shutdown(grace=5))
    assert isinstance(here.refused[waits], errors.Closing)
    here.later(4)
    assert here.loaded == {"a"}
    here.later(2)
    assert here.quit


@pytest.mark.parametrize("phase", ["preparing", "loading", "ready"])
def test_unload_stops_a_model_and_the_requests_that_came_before_are_served(phase: str) -> None:
    here = world("a")
    before = here.ask("a")
    if phase != "preparing":
        here.prepared("a")
    if phase == "ready":
        here.ready("a")
    here.tell(state.Unload("a"))
    here.work()
    assert before in here.granted
    here.finish(before)
    here.work()
    assert bool(here.running) == (phase == "preparing"), "what was not loaded yet is not unloaded"


def test_a_model_has_fewer_requests_in_progress_while_another_waits_for_memory() -> None:
    here = world("a", "c", limits=state.Limits(in_flight=10, contended=2))
    requests = [here.ask("a") for _ in range(4)]
    here.work()
    assert len(here.granted) == 4
    waits = here.ask("c")
    here.work()
    more = [here.ask("a") for _ in range(2)]
    assert not here.granted.keys() & set(more)
    for request in requests[:3]:
        here.finish(request)
    assert set(more[:1]) <= here.granted.keys()
    assert waits in here.scheduler.waiting
