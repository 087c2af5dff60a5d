"""What each process of the tests of several devices runs: the command, with more devices than a
CPU has, and as often as there are lines of words.
"""

import json
import sys

import tensorflow as tf

from tf_groupvit.cli import main

if __name__ == "__main__":
    devices, *commands = json.loads(sys.argv[1])
    if devices > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        configuration = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(cpu, configuration)
    for words in commands:
        main(["train", *words], standalone_mode=False)
