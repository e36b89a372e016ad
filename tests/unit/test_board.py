import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from service.accusations import Accusation, Accusations, Loading, mark_of
from service.board import SLOTS, Board, Stage
from service.errors import LoadError, ModelNotFound
from service.peers import PeerError, Peers

ROOT = Path(__file__).parents[2]
WITHIN_S = 30.0


@pytest.fixture
def board():
    return Board()


def test_the_folder_goes_with_its_maker_only():
    code = (
        "import os\nfrom service.board import Board\nboard = Board()\nprint(board.folder)\n"
        "if os.fork() == 0:\n    raise SystemExit\nos.wait()\nassert board.folder.exists()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not Path(done.stdout.splitlines()[0]).exists()


def test_slots_are_taken_once_and_again_when_they_are_free(board):
    slots = [board.take() for _ in range(SLOTS)]
    assert [slot.number for slot in slots] == list(range(SLOTS))
    with pytest.raises(RuntimeError, match="at most"):
        board.take()
    slots[3].stage = Stage.FREE
    assert board.take().number == 3


def test_others_see_stages_and_notes_of_a_process_that_was_killed(board):
    slot = board.take()
    child = os.fork()
    if child == 0:
        slot.stage = Stage.READY
        slot.note([["ä" * 100, 1, "mark"]])
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert (slot.stage, board.anybody_ready(), board.has_served) == (Stage.READY, True, True)
    assert slot.noted() == [["ä" * 100, 1, "mark"]]
    slot.stage = Stage.LEAVING
    assert (board.anybody_ready(), board.has_served) == (False, True)
    slot.note(None)
    assert slot.noted() is None


def test_a_note_that_is_too_long_is_forgotten_and_harms_no_other(board):
    first, second = board.take(), board.take()
    second.note("second")
    first.note("x" * 10_000)
    assert (first.noted(), second.noted()) == (None, "second")


def test_what_ended_a_process_is_refused_until_its_files_change_or_all_is_forgotten(board):
    slot = board.take()
    loading, mark = Loading(slot), mark_of({("model.h5", 10, 1, 2, 3)})
    with loading.noted("m", 1, mark):
        assert slot.noted() == [["m", 1, mark]]
        with loading.noted("n", 2, mark):
            assert slot.noted() == [["m", 1, mark], ["n", 2, mark]]
        assert slot.noted() == [["m", 1, mark]]
    assert slot.noted() == []
    accusations = Accusations(board)
    accusations.add([Accusation("m", 1, mark, "SIGSEGV")])
    accusations.add([Accusation("n", 2, mark, "exit code 3")])
    with pytest.raises(LoadError, match="SIGSEGV"), loading.noted("m", 1, mark):
        pass
    for name, version, now in [
        ("m", 2, mark),
        ("m", 1, mark_of({("model.h5", 11, 1, 2, 3)})),
        ("o", 1, mark),
    ]:
        with loading.noted(name, version, now):
            pass
    accusations.clear()
    with loading.noted("m", 1, mark):
        pass


def test_a_mark_does_not_depend_on_the_order_or_the_process():
    files = [(f"{number}.h5", number, 1, 2, 3) for number in range(20)]
    assert mark_of(frozenset(files)) == mark_of(reversed(files))


def test_unloaded_models_are_noted(board):
    board.set_unloaded("m", unloaded=True)
    board.set_unloaded("n", unloaded=True)
    board.set_unloaded("m", unloaded=True)
    assert board.unloaded() == ("n", "m")
    board.set_unloaded("n", unloaded=False)
    assert board.unloaded() == ("m",)
    board.forget_unloaded()
    assert board.unloaded() == ()


def test_one_has_the_turn(board):
    inside = threading.Event()

    def come():
        with board.turn():
            inside.set()

    with board.turn():
        other = threading.Thread(target=come)
        other.start()
        assert not inside.wait(0.2)
    other.join(WITHIN_S)
    assert inside.is_set()


def test_workers_answer_each_other(board):
    def fail(_):
        raise ModelNotFound("Expected one of the models. Received: another.", name="x", models=[])

    slots = [board.take() for _ in range(4)]
    for slot in slots[1:3]:
        Peers(slot, {"add": lambda question, slot=slot: question["to"] + slot.number, "fail": fail}).start()
        slot.stage = Stage.READY
    asking = Peers(slots[0], {})
    assert asking.ask({"ask": "add", "to": 10}, [Stage.READY], WITHIN_S) == {1: 11, 2: 12}
    slots[3].stage = Stage.READY  # has just gone, or cannot be reached
    assert asking.ask({"ask": "add", "to": 10}, [Stage.READY], WITHIN_S) == {1: 11, 2: 12}
    assert asking.ask({"ask": "add", "to": 10}, [Stage.LEAVING], WITHIN_S) == {}
    with pytest.raises(PeerError, match="Expected one of the models"):
        asking.ask({"ask": "fail"}, [Stage.READY], WITHIN_S)
    assert oct(board.folder.stat().st_mode)[-3:] == "700"
