"""Images and class names in, segmentations out: every argument, against PyTorch, and by laws."""

import copy
import io
import pickle
from functools import partial

import numpy as np
import pytest
from pictures import noise
from PIL import Image
from tqdm import tqdm

from tf_groupvit.config import GroupViTConfig
from tf_groupvit.errors import ImageError, InputError
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.preprocessing.image_arrays import STATISTICS, normalize, resize_bicubic
from tf_groupvit.segmentation.overlay import VIEWS
from tf_groupvit.segmentation.prompts import ClassEmbeddings
from tf_groupvit.segmentation.protocol import paper_scores
from tf_groupvit.segmentation.result import Segmentation
from tf_groupvit.segmentation.segmenter import Segmenter
from tf_groupvit.segmentation.upsampling import LowResScores

# Against PyTorch: scripts/make_golden/protocol.py


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(("mode", "rendering"), [("whole", "whole"), ("window", "windows")])
def test_labels_are_those_of_the_published_rules(
    make, rendered, picture, mode, rendering, background
):
    classes = ClassEmbeddings(tuple(map(str, rendered["classes"])), rendered["subset"])
    threshold = float(rendered[f"{rendering}.threshold"]) if background else None
    result = make(classes, mode=mode, background=threshold)(picture)
    expected = rendered[f"{rendering}.background" if background else f"{rendering}.plain"]
    assert len(np.unique(expected)) > 1
    assert (result.labels == expected).mean() >= 0.999


def test_window_mode_on_an_image_that_is_one_window_is_paper_scores_on_it(make):
    pixels = noise(64, 64)
    one = make(mode="window")
    pixel_values = normalize(pixels[None], *STATISTICS["imagenet"])
    expected = np.asarray(paper_scores(one.model, pixel_values, one.text_embeds))[0]
    assert one(pixels).scores == pytest.approx(expected, abs=1e-5)
    assert (one(pixels).labels == expected.argmax(0)).mean() > 0.999


def test_mode_whole_on_an_image_of_the_models_size_is_paper_scores_on_it(segmenter):
    pixels = noise(32, 32)
    expected = np.asarray(
        paper_scores(
            segmenter.model, normalize(pixels[None], *STATISTICS["imagenet"]), segmenter.text_embeds
        )
    )[0]
    assert (segmenter(pixels).labels == expected.argmax(0)).mean() > 0.999


# Sources


@pytest.mark.parametrize(("count", "shown"), [(20, ["0 of 20", "8 of 20", "16 of 20"]), (8, [])])
def test_a_terminal_shows_how_many_of_many_images_are_done(monkeypatch, count, shown):
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)
    monkeypatch.setattr(Segmenter, "segment_batch", lambda self, batch: list(batch))
    monkeypatch.setattr("tf_groupvit.segmentation.segmenter.tqdm", partial(tqdm, mininterval=0))
    assert Segmenter.__call__(object.__new__(Segmenter), list(range(count))) == list(range(count))
    assert [
        words for words in ("0 of 20", "8 of 20", "16 of 20") if words in stderr.getvalue()
    ] == shown
    assert bool(stderr.getvalue()) == bool(shown)


def test_one_image_gives_one_result_and_a_list_a_list(segmenter):
    one, several = segmenter(noise(40, 50)), segmenter([noise(40, 50), noise(20, 90, 1)])
    assert isinstance(one, Segmentation)
    assert [result.labels.shape for result in several] == [(40, 50), (20, 90)]
    assert (several[0].labels == one.labels).all()
    assert segmenter([]) == []


@pytest.mark.slow
def test_a_long_list_is_its_images_one_by_one(segmenter):
    images = [noise(30 + i, 40, i) for i in range(4)]
    together = segmenter(images)
    for image, result in zip(images, together, strict=True):
        assert (segmenter(image).labels == result.labels).mean() > 0.999


def test_paths_bytes_pictures_and_arrays_give_the_same(segmenter, tmp_path):
    pixels = noise(40, 50)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    (tmp_path / "a.png").write_bytes(content.getvalue())
    sources = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        content.getvalue(),
        Image.fromarray(pixels),
        pixels,
    ]
    labels = [segmenter(source).labels for source in sources]
    assert all((each == labels[0]).all() for each in labels)


def test_a_photo_lying_on_its_side_gets_labels_as_a_person_sees_it(segmenter):
    upright, content = noise(40, 70), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the rows of the file are the columns of the scene
    Image.fromarray(np.rot90(upright)).save(content, "png", exif=exif)
    result = segmenter(content.getvalue())
    assert result.labels.shape == (40, 70)
    assert (result.image == upright).all()
    assert (result.labels == segmenter(upright).labels).all()


@pytest.mark.parametrize("mode", ["whole", "window"])
@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (10, 200), (7, 7)])
def test_every_pixel_of_an_image_of_any_shape_gets_a_label(make, mode, size):
    result = make(mode=mode)(noise(*size))
    assert result.labels.shape == size
    assert result.labels.max() < 7


@pytest.mark.parametrize(
    "source", [b"", b"no image", 3, np.full((4, 4, 3), 0.5), np.zeros(4, np.uint8), "no.jpg"]
)
def test_what_is_no_image_is_refused(segmenter, source):
    with pytest.raises(ImageError):
        segmenter(source)


# Results


def test_scores_have_a_plane_for_each_class_and_their_arg_max_is_the_labels(make):
    result = make(background=0.3)(noise(41, 53))
    K, H, W = result.scores.shape
    assert (K, H, W) == (8, 41, 53)
    assert (result.scores.argmax(0) == result.labels).all()
    assert list(result.class_scores.values()) == pytest.approx(
        result.scores.max((1, 2)).tolist(), abs=1e-6
    )


def test_areas_are_fractions_of_all_pixels(make):
    result = make(background=0.3)(noise(41, 53))
    assert sum(result.areas.values()) == pytest.approx(1)
    assert len([area for area in result.areas.values() if area]) > 1
    assert result.areas["background"] == pytest.approx((result.labels == 0).mean())


def test_the_background_comes_first_and_is_no_prompt(make, segmenter):
    behind = make(background=0.5)
    assert behind.class_names == ["background", *segmenter.class_names]
    assert behind.text_embeds.shape == (7, 8)
    assert make(background=0.0)(noise(30, 30)).areas["background"] == 0
    # Whatever the threshold, some pixel is of a class, unless no pixel is of the group that fits
    # best.
    high = make(background=1.0)(noise(30, 30))
    assert high.areas["background"] > 0


def test_a_higher_threshold_never_makes_less_background(make):
    areas = [
        make(background=t)(noise(30, 30)).areas["background"]
        for t in (0, 0.1, 0.2, 0.3, 0.5, 0.9, 1)
    ]
    assert areas == sorted(areas)


@pytest.mark.parametrize("mode", ["whole", "window"])
def test_labels_by_threshold_are_those_of_a_segmenter_for_each_threshold(make, mode):
    pixels, thresholds = noise(50, 90), (0.1, 0.3, 0.95)
    found = list(make(mode=mode).labels_by_threshold(pixels, thresholds))
    for threshold, labels in zip(thresholds, found, strict=True):
        expected = make(mode=mode, background=threshold)(pixels).labels
        assert labels.shape == (50, 90)
        assert (labels == expected).mean() > 0.999
    with pytest.raises(InputError, match="from 0 to 1"):
        list(make().labels_by_threshold(pixels, (0.5, 2)))


def test_groups_of_both_stages_are_maps_of_the_image(make):
    for mode in ("whole", "window"):
        result = make(mode=mode, background=0.3)(noise(41, 53))
        assert [stage.shape for stage in result.groups] == [(41, 53)] * 2
        assert result.first_group.max() < 8
        assert result.final_group.max() < 4
        assert result.group_embeds.shape == (4, 8)
        assert np.linalg.norm(result.group_embeds, axis=1) == pytest.approx(np.ones(4), rel=1e-5)
        assert result.group_scores.shape == (4, 8)


def test_the_pixels_of_a_final_group_have_its_scores_where_the_size_is_the_models(segmenter):
    result = segmenter(noise(32, 32))
    rows = result.group_scores[result.final_group]  # (H, W, K)
    assert (np.abs(rows - result.scores.transpose(1, 2, 0)).max(-1) < 1e-5).mean() > 0.999
    best = result.group_classes(2)
    assert [len(classes) for classes in best] == [2] * 4
    assert best[0][0][1] == pytest.approx(result.group_scores[0].max())


def test_the_hf_protocol_labels_by_the_models_logits(make):
    hf = make(protocol="hf")
    pixels = noise(32, 32)
    values = normalize(pixels[None], *STATISTICS["imagenet"])
    found = hf.model(pixel_values=values, text_embeds=hf.text_embeds, output_segmentation=True)
    assert (
        hf(pixels).labels == np.asarray(found["segmentation_logits"])[0].argmax(0)
    ).mean() > 0.999


def test_permuting_the_classes_permutes_the_labels(make, segmenter):
    order = np.random.default_rng(1).permutation(7)
    classes = segmenter.classes
    permuted = ClassEmbeddings(tuple(classes.names[k] for k in order), classes.embeds[order])
    pixels = noise(50, 40)
    assert (order[make(permuted)(pixels).labels] == segmenter(pixels).labels).mean() > 0.999


@pytest.mark.data
@pytest.mark.parametrize("mode", ["whole", "window"])
def test_the_seven_views_of_the_photos_are_drawn(make, photos, mode):
    for result in make(mode=mode, background=0.2)(photos):
        assert result.labels.shape == (448, 448)
        for name in VIEWS:
            view = result.view(name)
            assert view.mode == "RGB"
            assert view.size == (448, 448) or (name == "all_groups" and view.width >= 448)


# Images


def test_images_of_every_kind_are_the_same_picture(segmenter, tmp_path):
    import tensorflow as tf

    pixels, content = noise(30, 40), io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    expected = segmenter(pixels).labels
    kinds = [
        content,
        tf.constant(pixels),
        pixels.astype("float32"),
        np.dstack([pixels, pixels[..., 0]]),
    ]
    found = segmenter(kind for kind in kinds)
    assert isinstance(found, list) and all((result.labels == expected).all() for result in found)
    grey = np.repeat(pixels[..., :1], 3, axis=-1)
    assert (segmenter(pixels[..., 0]).labels == segmenter(grey).labels).all()
    assert segmenter.classify(image for image in (pixels, pixels)).shape == (2, 7)
    with pytest.raises(ImageError, match=r"to 1: give np\.rint"):
        segmenter(pixels / pixels.max())


# Arguments


def test_a_larger_square_looks_closer(make):
    larger = make(size=64)
    assert larger.pipeline.square(noise(40, 50)).shape == (64, 64, 3)
    pixels = noise(64, 64)
    values = normalize(pixels[None], *STATISTICS["imagenet"])
    expected = np.asarray(paper_scores(larger.model, values, larger.text_embeds))[0].argmax(0)
    assert (larger(pixels).labels == expected).mean() > 0.999


def test_statistics_are_the_processors_unless_named(make):
    assert make(normalize=None).settings.mean == pytest.approx(STATISTICS["clip"][0])
    assert make(normalize="imagenet").settings.mean == STATISTICS["imagenet"][0]


def test_class_embeddings_need_no_tokenizer(segmenter):
    bare = Segmenter(
        segmenter.model, None, segmenter.processor, segmenter.classes, normalize="imagenet"
    )
    assert (bare(noise(30, 30)).labels == segmenter(noise(30, 30)).labels).all()
    with pytest.raises(InputError, match="need a tokenizer"):
        bare.with_classes(["cat"])


def test_another_threshold_and_other_classes(segmenter):
    behind = segmenter.with_background(0.3)
    assert behind.class_names[0] == "background"
    assert segmenter.class_names[0] == "dog"
    other = behind.with_classes("cat|kitten, bus", templates="identity")
    assert other.class_names == ["background", "cat", "bus"]
    assert other.settings == behind.settings
    assert other.classes.templates == ("{}",)


def test_assigned_classes_are_encoded_anew(make):
    segmenter = make(background=0.3)
    segmenter.classes = {"cat": ["kitten"], "bus": []}
    fresh = make("cat|kitten,bus", background=0.3)
    assert segmenter.class_names == fresh.class_names == ["background", "cat", "bus"]
    pixels = noise(20, 30)
    assert (segmenter(pixels).scores == fresh(pixels).scores).all()
    for wrong, message in (
        ([], "empty"),
        (["background"], "adds one of that name"),
        (7, "expected a list"),
    ):
        with pytest.raises(InputError, match=message):
            segmenter.classes = wrong
        assert segmenter.class_names == fresh.class_names
    assert (segmenter(pixels).labels == fresh(pixels).labels).all()


def test_other_classes_keep_the_templates_unless_others_are_named(make):
    segmenter = make(["dog", "sky"], templates=["{}", "a {}"])
    assert segmenter.with_classes("cat").classes.templates == ("{}", "a {}")
    assert segmenter.with_classes("cat", templates="identity").classes.templates == ("{}",)


@pytest.mark.parametrize("mode", ["whole", "window"])
@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda result: pickle.loads(pickle.dumps(result))]
)
def test_a_result_is_copied_with_all_of_its_parts(make, mode, again):
    result = make(background=0.3, mode=mode)(noise(30, 40))
    for _ in range(2):  # as it came, and used
        other = again(result)
        assert (other.labels == result.labels).all() and (other.scores == result.scores).all()
        assert (other.margins == result.margins).all()
        assert all((one == two).all() for one, two in zip(other.groups, result.groups, strict=True))
        assert (
            other.group_scores == result.group_scores
        ).all() and other.class_scores == result.class_scores
        assert (other.image == result.image).all() and (
            other.group_embeds == result.group_embeds
        ).all()


@pytest.mark.slow
def test_assigned_classes_are_those_of_predict_and_keep_their_templates(make):
    segmenter, pixels = make(["dog", "sky"], templates=["{}", "a {}"]), noise(20, 30)[None]
    first = segmenter.predict(pixels, verbose=0)
    segmenter.classes = ["sky", "dog"]
    assert segmenter.classes.templates == ("{}", "a {}")
    assert (segmenter.predict(pixels, verbose=0) == 1 - first).all()


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("background", "with_background"),
        ("templates", "with_classes"),
        *[
            (name, "Segmenter")
            for name in ("mode", "protocol", "size", "normalize", "runtime", "model", "settings")
        ],
        *[(name, "Segmenter") for name in ("processor", "class_names", "text_embeds")],
    ],
)
def test_what_would_have_no_effect_cannot_be_assigned(segmenter, name, how):
    before = repr(segmenter)
    with pytest.raises(
        InputError, match=rf"^{name} of a segmenter cannot be assigned: make another with {how}\("
    ):
        setattr(segmenter, name, None)
    assert repr(segmenter) == before


def test_a_segmenter_says_its_classes_and_settings(make):
    said = repr(make(["dog", "sky"], background=0.3))
    assert (
        said == "Segmenter(3 classes: 'background', 'dog', 'sky', templates='a photo of a {}.',"
        " protocol=paper, mode=whole (32 x 32), background=0.3, normalize=imagenet,"
        " refine=None, runtime=graph)"
    )
    many = repr(
        make(
            [f"c{k}" for k in range(171)],
            mode="window",
            normalize=None,
            templates=["{}", "a {}"],
            refine="guided",
        )
    )
    assert "171 classes" in many and "161 more" in many and "mode=window (windows of 64)" in many
    assert (
        "refine=guided" in many
        and "templates=2" in many
        and "normalize=as the processor" in many
        and "\n" not in many
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(classes=[]), "empty"),
        (dict(classes="dog,,cat"), "an empty name"),
        (dict(classes="dog,dog"), "twice"),
        (dict(classes=7), "expected a list"),
        (dict(classes="dog", templates="a photo"), "no single"),
        (dict(classes="dog", protocol="x"), "protocol"),
        (dict(classes="dog", mode="x"), "mode"),
        (dict(classes="dog", background=2), "from 0 to 1"),
        (dict(classes="dog", background=0.5, protocol="hf"), "protocol='paper'"),
        (dict(classes="dog,background", background=0.5), "'background' is a class"),
        (dict(classes="dog", size=33), "multiple"),
        (dict(classes="dog", size=32, mode="window"), "whole"),
        (dict(classes="dog", normalize="x"), "normalize"),
        (dict(classes="dog", runtime="x"), "'graph', 'lite', 'lite_int8'"),
        (
            dict(classes=ClassEmbeddings(("dog",), np.eye(1, 9, dtype="float32"))),
            "9 wide, the model's are 8",
        ),
    ],
)
def test_arguments_that_cannot_be_used_are_refused_in_one_line(make, arguments, words):
    with pytest.raises(InputError, match=words) as caught:
        make(**arguments)
    assert "\n" not in str(caught.value)


def test_a_class_of_200_words_is_cut_with_a_warning(make, segmenter):
    with pytest.warns(UserWarning, match="24"):
        result = make(["dog", "sheep " * 200])(noise(20, 20))
    assert result.labels.shape == (20, 20)


def test_a_model_without_grouping_is_refused(segmenter):
    config = segmenter.model.config.to_dict()
    config["vision_config"] |= dict(
        depths=[1], num_group_tokens=[0], num_output_groups=[0], num_hidden_layers=1
    )
    flat = TFGroupViTModel(GroupViTConfig.from_dict(config))
    with pytest.raises(InputError, match="no grouping stage"):
        Segmenter(flat, segmenter.tokenizer, segmenter.processor, ["dog"])
    with pytest.raises(InputError, match="no grouping stage"):
        paper_scores(flat, np.zeros((1, 3, 32, 32), "float32"), segmenter.text_embeds)


# Classification


def test_probabilities_are_the_softmax_of_the_models_logits(make, segmenter):
    pixels = noise(40, 50)
    values = normalize(resize_bicubic(pixels, 32, 32)[None], *STATISTICS["imagenet"])
    logits = np.asarray(
        segmenter.model(pixel_values=values, text_embeds=segmenter.text_embeds)["logits_per_image"]
    )[0]
    expected = np.exp(logits - logits.max())
    found = make(background=0.5, mode="window").classify(pixels)
    assert found.shape == (7,)
    assert found == pytest.approx(expected / expected.sum(), abs=1e-5)
    assert found.sum() == pytest.approx(1, abs=1e-5)


def test_a_list_is_classified_row_by_row(segmenter):
    images = [noise(40, 50), noise(9, 30, 1)]
    rows = segmenter.classify(images)
    assert rows.shape == (2, 7)
    for image, row in zip(images, rows, strict=True):
        assert segmenter.classify(image) == pytest.approx(row, abs=1e-5)
    assert segmenter.classify([]).shape == (0, 7)


@pytest.mark.slow
def test_half_precision_labels_almost_alike(folder, segmenter):
    half = Segmenter.from_pretrained(
        folder, segmenter.classes, normalize="imagenet", dtype="bfloat16"
    )
    pixels = noise(60, 60)
    assert (half(pixels).labels == segmenter(pixels).labels).mean() > 0.8


# The highest pixel score of a class


def test_labels_keep_small_numbers_of_classes_in_a_byte():
    labels = LowResScores(np.ones((2, 2, 3), "float32")).labels(4, 4)
    assert labels.dtype == np.uint8


@pytest.mark.parametrize(
    "choices",
    [{}, {"background": 0.5}, {"protocol": "hf"}, {"mode": "window"}, {"refine": "guided"}],
    ids=str,
)
def test_margins_are_from_0_to_1_whatever_the_choices(make, choices):
    result = make(**choices)(noise(40, 70))
    assert result.margins.shape == (40, 70)
    assert result.margins.min() >= 0 and result.margins.max() <= 1
