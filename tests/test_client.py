"""What the client asks and what comes back, over REST and gRPC, waiting and awaited."""

import asyncio

import numpy as np
import pytest
from client_serving import (
    NAMES,
    PHOTO,
    SIGNATURES,
    TALL,
    WAYS,
    Serving,
    asking,
    encoded,
    rest,
    segment,
)
from PIL import Image

from tf_groupvit.client import AsyncClient
from tf_groupvit.errors import InputError, RequestError


@pytest.fixture
def serving():
    return Serving()


@pytest.fixture(params=WAYS)
def ask(request, serving):
    yield from asking(request.param, serving)


def test_an_image_gives_the_segmentation_that_a_segmenter_gives(ask):
    result = ask("segment", PHOTO)
    assert result.labels.dtype == np.uint8 and result.labels.tolist() == [[0, 0, 0, 1, 1, 1]] * 4
    assert result.class_names == NAMES and (result.image == PHOTO).all()
    assert result.areas == {"background": 0.5, "dog": 0.5, "cat": 0.0}
    assert result.class_scores == {"background": 0.5, "dog": 0.5, "cat": 0.5}
    assert result.overlay().width >= 6
    for absent in ("scores", "first_group", "final_group"):
        with pytest.raises(InputError, match="A server's answer holds a mask"):
            getattr(result, absent)


def test_a_list_gives_a_list_in_batches(ask, serving):
    results = ask("segment", [PHOTO] * 5, batch_size=2)
    assert len(results) == 5
    assert [count["image_bytes"] for _, count in serving.asked] == [2, 2, 1]
    assert ask("segment", []) == []
    assert len(ask("segment", [PHOTO])) == 1


def test_images_may_be_paths_bytes_pil_or_arrays(ask, tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    sources = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        encoded(PHOTO),
        Image.fromarray(PHOTO),
        PHOTO,
    ]
    for result in ask("segment", sources):
        assert result.labels.tolist() == [[0, 0, 0, 1, 1, 1]] * 4 and (result.image == PHOTO).all()


def test_a_turned_photo_comes_back_as_a_person_sees_it(ask):
    result = ask("segment", encoded(PHOTO, "JPEG", quality=95, exif=TALL.tobytes()))
    assert result.labels.shape == (6, 4) and result.image.shape == (6, 4, 3)
    assert ((result.image[..., 0] > 127) == result.labels).all()


def test_own_classes_go_to_segment_open(ask, serving):
    result = ask("segment", PHOTO, ["wolf", " hay "])
    assert serving.asked == [("segment_open", {"image_bytes": 1, "class_names": 1})]
    assert result.class_names == ["background", "wolf", "hay"]
    assert ask("segment", PHOTO, "wolf, hay").class_names == ["background", "wolf", "hay"]
    for synonyms in ({"wolf": ["dog"], "hay": []}, ["wolf|dog", "hay"]):  # as they were sent
        assert ask("segment", PHOTO, synonyms).class_names == ["background", "wolf|dog", "hay"]


def test_padding_of_class_names_is_taken_off(ask, monkeypatch):
    monkeypatch.setitem(
        SIGNATURES,
        "serving_default",
        lambda image_bytes: segment(image_bytes, [["a", "b"], ["a", "b", "c"]]),
    )
    short, long = ask("segment", [PHOTO, PHOTO])
    assert short.class_names == ["a", "b"] and long.class_names == ["a", "b", "c"]
    assert list(short.class_scores) == ["a", "b"]


def test_classify_is_sorted_best_first(ask):
    assert list(ask("classify", PHOTO).items()) == [("cat", 0.75), ("dog", 0.25)]
    assert ask("classify", [PHOTO, PHOTO]) == [{"cat": 0.75, "dog": 0.25}] * 2


def test_embeddings_are_vectors_for_one_and_matrices_for_lists(ask):
    assert ask("encode_text", "dog").tolist() == [3.0, 1.0, -0.5]
    assert ask("encode_text", ["dog", "sheep"])[:, 0].tolist() == [3.0, 5.0]
    assert ask("encode_text", ["dog"]).shape == (1, 3) and ask("encode_text", []).shape[0] == 0
    assert ask("encode_text", "naïve 狗").dtype == np.float32
    assert ask("encode_image", PHOTO).shape == (3,) and ask("encode_image", [PHOTO] * 2).shape == (
        2,
        3,
    )


def test_predict_keeps_names_shapes_and_kinds(ask):
    given = {"f": [1, 2.5], "i": np.array([2**40]), "b": [True, False, True], "s": ["a", "狗"]}
    answer = ask("predict", given, "kinds")
    assert {name: array.dtype.kind for name, array in answer.items()} == {
        "f": "f",
        "i": "i",
        "b": "b",
        "s": "O",
        "s_bytes": "O",
    }
    assert answer["f"].tolist() == [1.0, 2.5] and answer["f"].dtype == np.float32
    assert answer["i"].tolist() == [2**40] and answer["b"].tolist() == [True, False, True]
    assert answer["s"].tolist() == ["a", "狗"] and answer["s_bytes"].tolist() == [
        b"a",
        "狗".encode(),
    ]


def test_predict_names_a_lone_output_and_keeps_a_scalar(ask):
    answer = ask("predict", {"x": [1.0, 2.0]}, "total")
    assert answer["total"].shape == () and answer["total"] == 3.0


@pytest.mark.parametrize(
    ("inputs", "signature", "message"),
    [
        ({"x": [1.0]}, "none", "no signature 'none'.*total"),
        ({"y": [1.0]}, "total", r"takes \['x'\], not \['y'\]"),
        ({"x": ["a"]}, "total", "expected as DT_FLOAT"),
        ({"f": [1], "i": [1.5], "b": [True], "s": ["a"]}, "kinds", "'i' is expected as DT_INT64"),
        ({"f": [1], "i": [1], "b": [True], "s": [1]}, "kinds", "'s' is expected as DT_STRING"),
    ],
)
def test_predict_refuses_what_the_signature_does_not_take(ask, inputs, signature, message):
    with pytest.raises(InputError, match=message):
        ask("predict", inputs, signature)


def test_status_and_metadata_read_the_same_over_rest_and_grpc(ask):
    assert ask("status") == [
        {"version": 7, "state": "AVAILABLE", "error_code": "OK", "error_message": ""}
    ]
    metadata = ask("metadata")
    assert (metadata["name"], metadata["version"]) == ("groupvit", 7)
    assert metadata["signatures"]["total"] == {
        "inputs": {"x": {"dtype": "DT_FLOAT", "shape": [-1]}},
        "outputs": {"total": {"dtype": "DT_FLOAT", "shape": [-1]}},
    }
    assert "__saved_model_init_op" not in metadata["signatures"]


def test_versions_and_labels_reach_the_server(ask):
    assert ask("encode_text", "dog", version=7).shape == (3,)
    assert ask("encode_text", "dog", version="stable").shape == (3,)
    with pytest.raises(
        RequestError, match=r"NOT_FOUND: Servable not found for request: Specific\(groupvit, 8\)"
    ):
        ask("encode_text", "dog", version=8)
    with pytest.raises(RequestError, match="Unrecognized servable version label: beta"):
        ask("encode_text", "dog", version="beta")


def test_many_async_requests_share_a_client_and_keep_their_answers():
    serving = Serving()

    async def many():
        async with AsyncClient("x:1", transport=rest(serving)) as client:
            return await asyncio.gather(*(client.encode_text("x" * n) for n in range(30)))

    assert [int(vector[0]) for vector in asyncio.run(many())] == list(range(30))
