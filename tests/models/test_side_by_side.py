"""Two calculations at once: what comes out, on how many threads, and whom it concerns."""

import pickle
import threading

import pytest
import torch

from models.side_by_side import HalfTheThreads, side_by_side

PATIENCE_S = 60


def where_and_on_how_many() -> tuple[int, int]:
    return threading.get_ident(), torch.get_num_threads()


@pytest.mark.parametrize("run", [side_by_side, HalfTheThreads()])
def test_both_run_at_the_same_time_and_results_keep_their_order(set_threads, run):
    set_threads(2)
    meeting = threading.Barrier(2, timeout=PATIENCE_S)

    def met(name):
        meeting.wait()
        return name

    assert run(lambda: met("first"), lambda: met("second")) == ("first", "second")


def test_each_has_half_of_the_threads_and_everybody_else_keeps_theirs(set_threads):
    set_threads(4)
    asked, answered = threading.Event(), threading.Event()
    bystander: list[int] = []

    def watch():
        bystander.append(torch.get_num_threads())
        asked.wait(PATIENCE_S)
        bystander.append(torch.get_num_threads())
        answered.set()

    def first():
        asked.set()
        assert answered.wait(PATIENCE_S)
        newcomer: list[int] = []
        thread = threading.Thread(target=lambda: newcomer.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        return torch.get_num_threads(), newcomer

    watcher = threading.Thread(target=watch)
    watcher.start()
    halved = HalfTheThreads()(first, torch.get_num_threads)
    watcher.join()
    assert halved == ((2, [4]), 2)
    assert bystander == [4, 4]
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("run", [side_by_side, HalfTheThreads()])
def test_with_one_thread_nothing_leaves_the_caller(set_threads, run):
    set_threads(1)
    mine = (threading.get_ident(), 1)
    assert run(where_and_on_how_many, where_and_on_how_many) == (mine, mine)


@pytest.mark.parametrize("culprit", [0, 1])
def test_an_error_of_either_comes_out_and_the_threads_are_back(set_threads, culprit):
    set_threads(4)
    with pytest.raises(ZeroDivisionError):
        HalfTheThreads()(lambda: 1 / culprit, lambda: 1 / (1 - culprit))
    assert torch.get_num_threads() == 4


def test_it_can_go_to_another_process_after_use(set_threads):
    set_threads(2)
    both = HalfTheThreads()
    both(int, int)
    assert pickle.loads(pickle.dumps(both))(int, float) == (0, 0.0)
