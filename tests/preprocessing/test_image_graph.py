"""The graph side alone: mixed files in a batch, masks, and a SavedModel that keeps its checks."""

import base64
import io

import numpy as np
import pytest
import tensorflow as tf
from image_sides import SIDES, draw, write
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from tf_groupvit.preprocessing import image_graph
from tf_groupvit.preprocessing.image_arrays import STATISTICS
from tf_groupvit.preprocessing.image_graph_bytes import File, big, filled_in, little, read, upper

SIDE = 24
FILES = [
    write(Image.fromarray(draw(13, 22)), "PNG"),
    write(Image.fromarray(draw(60, 31)), "JPEG"),
    write(Image.fromarray(draw(24, 24)).quantize(64), "GIF"),
    write(Image.fromarray(draw(5, 90)), "BMP"),
]


class Module(tf.Module):
    """Image bytes (B) -> pixel values (B, 3, 24, 24)."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def prepare(self, image_bytes):
        pixels = tf.map_fn(
            lambda contents: image_graph.resize_bicubic(image_graph.decode(contents), SIDE, SIDE),
            image_bytes,
            fn_output_signature=tf.TensorSpec([None, None, 3], tf.uint8),
        )
        return image_graph.to_pixel_values(
            tf.ensure_shape(pixels, [None, SIDE, SIDE, 3]), *STATISTICS["clip"]
        )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("saved"))
    module = Module()
    tf.saved_model.save(module, folder, signatures=module.prepare)
    return folder


@pytest.fixture(scope="module")
def prepare(saved):
    signature = tf.saved_model.load(saved).signatures["serving_default"]
    return lambda files: signature(tf.constant(files, tf.string))["output_0"].numpy()


def test_a_batch_of_four_kinds_and_sizes_is_as_python_makes_it(prepare):
    python = SIDES["python"]
    B, C, H, W = (values := prepare(FILES)).shape
    assert (B, C, H, W) == (4, 3, SIDE, SIDE)
    for file, value in zip(FILES, values, strict=True):
        pixels = python.resize_bicubic(python.read(file), SIDE, SIDE)
        two_levels = 2 / 255 / min(STATISTICS["clip"][1]) + 1e-6
        np.testing.assert_allclose(
            value, python.normalize(pixels[None], *STATISTICS["clip"])[0], atol=two_levels
        )


def test_an_image_is_the_same_alone_and_in_a_batch(prepare):
    together = prepare(FILES)
    for i, file in enumerate(FILES):
        np.testing.assert_array_equal(prepare([file])[0], together[i])


def test_an_empty_batch_gives_an_empty_result(prepare):
    assert prepare([]).shape == (0, 3, SIDE, SIDE)


@pytest.mark.parametrize(
    "bad", [b"", b"no image", FILES[0][:40], FILES[1][:-9]], ids=["empty", "text", "png", "jpeg"]
)
def test_one_bad_image_in_a_saved_batch_is_an_invalid_argument(prepare, bad):
    with pytest.raises(tf.errors.InvalidArgumentError):
        prepare([FILES[0], bad])


def test_the_checks_survive_in_a_session(saved):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], saved)
        signature = loaded.signature_def["serving_default"]
        (given,), (wanted,) = signature.inputs.values(), signature.outputs.values()
        assert session.run(wanted.name, {given.name: FILES}).shape == (4, 3, SIDE, SIDE)
        bomb = FILES[3][:18] + b"\xff\xff\0\0\xff\xff\0\0" + FILES[3][26:]
        with pytest.raises(tf.errors.InvalidArgumentError, match="65535 x 65535 is over the limit"):
            session.run(wanted.name, {given.name: [bomb]})


def test_the_decoder_is_in_the_saved_graph_once_and_only_of_core_operations(saved):
    content = saved_model_pb2.SavedModel()
    with open(f"{saved}/saved_model.pb", "rb") as file:
        content.ParseFromString(file.read())
    functions = content.meta_graphs[0].graph_def.library.function
    operations = [node.op for function in functions for node in function.node_def]
    assert operations.count("DecodeJpeg") == 4  # whole, and at a half, a quarter and an eighth
    assert operations.count("DecodePng") == 1
    assert not {"PyFunc", "EagerPyFunc", "XlaCallModule"} & set(operations)


AS_TEXT = [
    write(Image.fromarray(draw(40, 40)), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP")
]


@pytest.mark.parametrize("file", AS_TEXT, ids=lambda file: repr(file[:3]))
def test_base64_as_plain_text_is_told_how_to_send_it(file):
    text = base64.b64encode(file)
    for given in (text, b"data:image/png;base64," + text, b"\n " + text):
        words, pixels = image_graph.read_pixels(image_graph.read_header(tf.constant(given)))
        assert 'send {"b64": "..."} over REST' in words.numpy().decode() and pixels.shape == (
            0,
            0,
            3,
        )


def test_what_cannot_be_read_says_so_as_data_and_gives_no_pixels():
    for bad in (b"", b"no image", FILES[0][:40], FILES[1][:-9], FILES[2][:-30], FILES[3][:-9]):
        words, pixels = image_graph.read_pixels(image_graph.read_header(tf.constant(bad)))
        assert words.numpy().startswith(b"Expected ") and pixels.shape == (0, 0, 3)
    words, pixels = image_graph.read_pixels(image_graph.read_header(tf.constant(FILES[0])))
    assert words.numpy() == b"" and pixels.shape == (13, 22, 3)


def test_a_mask_comes_back_byte_by_byte():
    labels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    with Image.open(io.BytesIO(image_graph.encode_mask(tf.constant(labels)).numpy())) as mask:
        assert mask.mode == "L"
        H, W = np.asarray(mask).shape
        assert labels.shape == (H, W)
        np.testing.assert_array_equal(np.asarray(mask), labels)


def test_more_than_one_string_is_refused():
    with pytest.raises((ValueError, TypeError, tf.errors.InvalidArgumentError)):
        image_graph.decode(tf.constant(FILES))


def test_numbers_of_a_file_are_read_many_at_once_and_are_zero_beyond_its_end():
    file = File.of(tf.constant(b"\x01\x02\x03\xff\xff\xff\xff"))
    found = read(file, None, little(0, 2), big(0, 2), upper(3), [2, 0], little(5, 4), [])
    assert [int(n) for n in found] == [0x0201, 0x0102, -(2**32), 0x0103, 0xFFFF, 0]
    assert [int(n) for n in read(file, tf.constant(2, tf.int64), [0], [100])] == [3, 0]


def test_the_chosen_words_are_filled_in_as_python_does_it():
    templates = ["got {W} x {H}{{}}, {W}.", "", "no name"]
    for i, template in enumerate(templates):
        words = filled_in(templates, tf.constant(i), ("H", "W"), tf.constant([3, -4], tf.int64))
        assert words.numpy().decode() == template.format(H=3, W=-4)
