"""Progress, early stopping, and what is refused."""

import pytest

from tf_groupvit.checkpoints.safetensors_file import write_safetensors
from tf_groupvit.errors import TrainingError
from tf_groupvit.training import callbacks
from tf_groupvit.training.callbacks import History, KeepBest, StopAt, TensorBoard
from tf_groupvit.training.run_folder import HISTORY, STATE, RunFolder


def test_progress_tells_the_time_that_is_left_without_the_first_step(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    watcher = callbacks.Progress(steps=1000, batch_size=8, start=100, bar=False)
    watcher.on_train_begin()
    for seconds in (500, 2, 2, 2, 60):
        now[0] += seconds
        watcher.on_train_batch_end(0, {"loss": 1.5})
    watcher.on_epoch_end(0, {"loss": 1.25})
    watcher.step = 999
    now[0] += 60
    watcher.on_train_batch_end(0, {"loss": 1.5})  # the line of the round follows
    watcher.on_epoch_end(1, {"loss": 1.0})
    assert capsys.readouterr().err.splitlines() == [
        "step 102 of 1000: loss 1.500, about 30 min left",  # 898 steps of 2 s
        "step 105 of 1000: loss 1.500, about 4 h 6 min left",  # 895 of 66 s / 4
        "step 105 of 1000: loss 1.250, about 4 h 6 min left",
        "step 1000 of 1000: loss 1.000",
    ]


def test_a_loss_that_is_no_number_stops_with_the_step_and_the_last_good_state(tmp_path):
    (tmp_path / STATE).parent.mkdir()
    write_safetensors(tmp_path / STATE, {}, {"step": "20"})
    watcher = StopAt(99, RunFolder(tmp_path), start=20)
    watcher.on_train_batch_end(0, {"loss": 1.0})
    good = "the last good state is of step 20, .*state.safetensors"
    with pytest.raises(TrainingError, match=f"nan at step 22; {good}"):
        watcher.on_train_batch_end(1, {"loss": float("nan")})
    with pytest.raises(TrainingError, match="inf at step 1; no state was saved before it"):
        StopAt(99, RunFolder(tmp_path / "none")).on_train_batch_end(0, {"loss": float("inf")})


def test_the_best_is_kept_and_patience_counts_what_was_measured(tmp_path):
    saved = []

    class Model:
        stop_training = False

        def save_pretrained(self, folder):
            saved.append(folder)

    watcher = KeepBest(
        tmp_path, Model(), keep=True, patience=2, lines=[{"step": 1, "val_loss": 3.0}]
    )
    watcher.set_model(Model())
    for round_, logs in enumerate([{"val_loss": 2.0}, {"loss": 9.0}, {"val_loss": 2.5}]):
        watcher.on_epoch_end(round_, logs)
        assert not watcher.model.stop_training
    watcher.on_epoch_end(3, {"val_loss": 2.0})
    assert watcher.model.stop_training and watcher.enough and saved == [tmp_path]


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    watcher = TensorBoard(
        tmp_path / "file" / "shown", History(tmp_path / HISTORY, 1, dict, 1), dict
    )
    with pytest.raises(TrainingError, match="cannot be written for TensorBoard") as caught:
        watcher.on_train_begin()
    assert "\n" not in str(caught.value)
