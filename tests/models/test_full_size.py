"""The published size: parameters and names of the default config, as transformers' PyTorch class
has them.
"""

import re

import keras
import pytest

from tf_groupvit.checkpoints.description import parameters_of
from tf_groupvit.checkpoints.names import batch_counters
from tf_groupvit.config import GroupViTConfig
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.models.weights import expected_shapes, weights_will_be_loaded

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    with weights_will_be_loaded():
        return TFGroupViTModel(GroupViTConfig())


def test_parameters_are_counted_part_by_part(model):
    """Source: the state dict of transformers' GroupViTModel(GroupViTConfig())."""
    trained = sum(keras.ops.size(variable) for variable in model.trainable_weights)
    assert int(trained) == 55_726_609
    assert parameters_of(expected_shapes(model)) == {
        "total": 55_726_609,
        "text_model": 22_145_792,
        "vision_model": 28_837_136,
        "text_projection": 2_109_696,
        "visual_projection": 2_633_984,
        "logit_scale": 1,
    }


def test_names_and_shapes_are_the_502_of_the_state_dict(model, golden):
    """tests/golden/models_state_dict.txt is printed by scripts/make_golden/models.py --state-dict."""
    lines = (golden / "models_state_dict.txt").read_text().splitlines()
    rows = [re.fullmatch(r"(\S+) (\(.*\)) \S+", line) for line in lines if line.strip()]
    expected = {row[1]: tuple(map(int, re.findall(r"\d+", row[2]))) for row in rows if row}
    found = expected_shapes(model)
    found |= dict.fromkeys(batch_counters(found), ())
    assert found == expected and len(found) == 502
