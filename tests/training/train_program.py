"""What each process of the tests of several devices runs: the command, several times.

Its argument is JSON: ``devices``, how many this machine's CPU is; ``commands``, words of each; and
``kill``, the number of a command, a worker, and the step in which that worker kills itself.
"""

import json
import os
import shutil
import signal
import sys
from contextlib import contextmanager

import tensorflow as tf

from tf_groupvit.cli import main
from tf_groupvit.training import callbacks, devices
from tf_groupvit.training.run_folder import STATE

FIRST = "first.safetensors"  # in a run's folder: a copy of the state of step 1


def keeping_first(save):
    """``SaveState.on_epoch_end``, which also keeps a copy of the state of step 1."""

    def save_and_copy(self, epoch, logs=None):
        save(self, epoch, logs)
        if self.step == 1:
            shutil.copy(self.folder.local / STATE, self.folder.local / FIRST)

    return save_and_copy


def kill_in(step: int, worker: int) -> None:
    """Have this process die, if it is that worker, before it has done a step."""
    waiting = devices.Team.waiting

    @contextmanager
    def killing(self, what):
        if what == f"Step {step}" and self.cluster.worker == worker:
            os.kill(os.getpid(), signal.SIGKILL)
        with waiting(self, what):
            yield

    devices.Team.waiting = killing


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    if asked["devices"] > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * asked["devices"]
        tf.config.set_logical_device_configuration(cpu, logical)
    callbacks.SaveState.on_epoch_end = keeping_first(callbacks.SaveState.on_epoch_end)
    for number, words in enumerate(asked["commands"]):
        if asked["kill"] and number == asked["kill"]["command"]:
            kill_in(asked["kill"]["step"], asked["kill"]["worker"])
        main(["train", *words], standalone_mode=False)
