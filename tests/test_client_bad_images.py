"""Images that cannot be read, here or by the server, and the others of their request."""

import copy
import pickle
import unicodedata

import numpy as np
import pytest
from client_serving import NAMES, PHOTO, SIGNATURES, WAYS, RefusalError, Serving, asking, encoded

from tf_groupvit.errors import ImageError, InputError, RequestError
from tf_groupvit.segmentation.result import Segmentation

# Its header is whole, so that only the server finds out.
CUT = encoded(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8), "JPEG")[:800]
NONSENSE = b"no picture"
HALVES = [[0, 0, 0, 1, 1, 1]] * 4


@pytest.fixture
def serving():
    return Serving()


@pytest.fixture(params=WAYS)
def ask(request, serving):
    yield from asking(request.param, serving)


@pytest.fixture
def old(monkeypatch):
    """An export of version 0.1: no output "error", and one bad image has the whole request refused."""

    def refusing(function):
        def call(**inputs):
            outputs = function(**inputs)
            words = [text for text in outputs.pop("error")[1] if text]
            if words:
                raise RefusalError("INVALID_ARGUMENT", words[0])
            return outputs

        return call

    for name in ("serving_default", "segment_open", "classify", "encode_image"):
        monkeypatch.setitem(SIGNATURES, name, refusing(SIGNATURES[name]))


def test_the_first_bad_image_is_raised_with_its_place_and_what_the_others_gave(ask):
    with pytest.raises(ImageError, match=r"^image: Expected an image, came 800 bytes\.$") as caught:
        ask("segment", [PHOTO, CUT, PHOTO, NONSENSE], batch_size=2)
    error = caught.value
    assert error.index == 1 and len(error.results) == 4
    assert [error.results[place].labels.tolist() for place in (0, 2)] == [HALVES] * 2
    assert error.results[1] is error and error.results[3].index == 3
    assert "expected an image" in str(error.results[3])


def test_errors_are_returned_at_their_places(ask, tmp_path):
    (tmp_path / "cut.jpg").write_bytes(CUT)
    images = [tmp_path / "gone.png", PHOTO, NONSENSE, tmp_path / "cut.jpg", PHOTO]
    for size in (1, 2, 8):
        results = ask("segment", images, errors="return", batch_size=size)
        assert [type(result) for result in results] == [
            ImageError,
            Segmentation,
            ImageError,
            ImageError,
            Segmentation,
        ]
        assert [result.index for result in results if isinstance(result, ImageError)] == [0, 2, 3]
        assert results[1].labels.tolist() == results[4].labels.tolist() == HALVES
        assert str(results[3]) == f"{tmp_path / 'cut.jpg'}: Expected an image, came 800 bytes."


@pytest.mark.parametrize("image", [CUT, NONSENSE])
def test_one_bad_image_alone_is_an_image_error(ask, image):
    with pytest.raises(ImageError) as caught:
        ask("segment", image)
    assert caught.value.index == 0 and caught.value.results == [caught.value]
    assert isinstance(ask("segment", image, errors="return"), ImageError)
    assert [error.index for error in ask("segment", [image] * 3, errors="return")] == [0, 1, 2]


def test_classify_and_encode_image_do_the_same(ask):
    first, bad, last = ask("classify", [PHOTO, CUT, PHOTO], errors="return")
    assert first == last == {"cat": 0.75, "dog": 0.25} and isinstance(bad, ImageError)
    first, bad, last = ask("encode_image", [PHOTO, CUT, PHOTO], errors="return")
    assert first.shape == last.shape == (3,) and isinstance(bad, ImageError)
    assert [embed.shape for embed in ask("encode_image", [PHOTO] * 2, errors="return")] == [
        (3,)
    ] * 2
    for method in ("classify", "encode_image"):
        with pytest.raises(ImageError) as caught:
            ask(method, [PHOTO, CUT])
        assert caught.value.index == 1 and not isinstance(caught.value.results[0], ImageError)


def test_each_bad_image_has_words_of_its_own_where_all_are_bad(ask):
    longer = CUT + b"..."
    results = ask("segment", [CUT, longer], errors="return")
    assert [str(error)[-10:] for error in results] == ["800 bytes.", "803 bytes."]


def test_exports_without_the_output_error_still_answer(ask, serving, old):
    assert ask("segment", PHOTO).labels.tolist() == HALVES
    assert ask("encode_image", [PHOTO] * 2).shape == (2, 3)
    assert ask("classify", PHOTO) == {"cat": 0.75, "dog": 0.25}
    results = ask("segment", [PHOTO, CUT, PHOTO], errors="return")
    assert [isinstance(result, ImageError) for result in results] == [False, True, False]
    with pytest.raises(ImageError) as caught:
        ask("encode_image", [CUT, PHOTO])
    assert caught.value.index == 0 and caught.value.results[1].shape == (3,)


def test_what_is_wrong_with_the_request_is_no_fault_of_an_image(ask, monkeypatch):
    def refuse(image_bytes, class_names):
        raise RefusalError("INVALID_ARGUMENT", "at most 256 labels")

    monkeypatch.setitem(SIGNATURES, "segment_open", refuse)
    for errors in ("raise", "return"):
        with pytest.raises(RequestError, match="INVALID_ARGUMENT: at most 256 labels"):
            ask("segment", [PHOTO, PHOTO], ["dog"], errors=errors)
    with pytest.raises(
        InputError, match="errors is expected as 'raise' or 'return', not as 'ignore'"
    ):
        ask("segment", PHOTO, errors="ignore")


def test_a_server_that_goes_away_leaves_what_it_gave(ask, serving, monkeypatch):
    def leave(image_bytes):
        serving.refusals.append(("NOT_FOUND", "gone"))
        return stays(image_bytes)

    stays = SIGNATURES["serving_default"]
    monkeypatch.setitem(SIGNATURES, "serving_default", leave)
    with pytest.raises(RequestError, match="NOT_FOUND: gone") as caught:
        ask("segment", [NONSENSE, PHOTO, PHOTO, PHOTO], batch_size=1)
    kinds = [type(result) for result in caught.value.results]
    assert kinds == [ImageError, Segmentation, type(None), type(None)]


def test_images_may_come_from_a_generator(ask):
    assert len(ask("segment", (PHOTO for _ in range(3)), batch_size=2)) == 3


def test_what_the_client_gives_can_be_pickled_and_copied(ask):
    with pytest.raises(ImageError) as caught:
        ask("segment", [PHOTO, CUT])
    for again in (copy.deepcopy(caught.value), pickle.loads(pickle.dumps(caught.value))):
        result, error = again.results
        assert error is again and (again.index, str(again)) == (1, str(caught.value))
        assert result.labels.tolist() == HALVES and result.class_names == NAMES
        assert result.class_scores["dog"] == 0.5 and (result.image == PHOTO).all()
    with pytest.raises(RequestError) as caught:
        ask("segment", PHOTO, model_name="other")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.code, again.message, str(again)) == (
        caught.value.code,
        caught.value.message,
        str(caught.value),
    )


@pytest.mark.parametrize("text", [b"dog", 5, None, "\ud800"])
def test_what_is_no_text_is_not_sent(ask, serving, text):
    with pytest.raises(InputError, match=r"expected as strings|surrogate"):
        ask("encode_text", ["dog", text])
    if isinstance(text, str):
        with pytest.raises(InputError, match="surrogate"):
            ask("segment", PHOTO, [text])
    assert serving.asked == [] and ask("encode_text", (name for name in ("a", "b"))).shape == (2, 3)


def test_names_and_texts_are_sent_composed_and_come_back_as_they_were_given(
    ask, serving, monkeypatch
):
    seen = []

    def watched(function):
        return lambda **inputs: (
            seen.append(inputs.get("text", inputs.get("class_names"))),
            function(**inputs),
        )[1]

    for name in ("segment_open", "encode_text"):
        monkeypatch.setitem(SIGNATURES, name, watched(SIGNATURES[name]))
    apart, whole = (unicodedata.normalize(form, "étoile") for form in ("NFD", "NFC"))
    assert ask("segment", PHOTO, [apart, "dog"]).class_names == ["background", apart, "dog"]
    ask("encode_text", apart)
    assert seen == [[f"{whole},dog"], [whole]]
    with pytest.raises(InputError, match="twice"):
        ask("segment", PHOTO, [apart, whole])
