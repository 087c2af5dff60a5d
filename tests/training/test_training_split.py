"""A share of the pairs held out: none of them is trained on, whatever the share and the number of
shards.
"""

import pytest
from pairs import shard

from tf_groupvit.training.caption_sources import open_pairs, split


def names(source):
    return [record.name for shard in source.shards for record in source.read(shard)]


@pytest.mark.parametrize(
    "share, held", [(0.2, 2 * 2), (0.25, 2 * 2), (0.1, 2), (0.5, 2 * 5), (0.05, 0)]
)
def test_each_shard_gives_its_share_and_no_pair_is_in_both_parts(tmp_path, share, held):
    for k in range(2):
        shard(tmp_path / f"{k}.tar", 10, first=10 * k)
    source = open_pairs(tmp_path)
    rest, held_out = split(source, share)
    assert len(names(held_out)) == held
    assert not set(names(rest)) & set(names(held_out))
    assert sorted(names(rest) + names(held_out)) == sorted(names(source))
    assert names(held_out) == names(split(source, share)[1])


def test_held_out_pairs_lie_spread(tmp_path):
    source = open_pairs(shard(tmp_path / "s.tar", 10))
    assert [name.rpartition(":")[2] for name in names(split(source, 0.2)[1])] == [
        "000000004",
        "000000009",
    ]
