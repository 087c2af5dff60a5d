"""The page that runs the model itself, served as files from a folder below the root: the labels of
Python, typed classes, errors in words; phone, keyboard, camera.
"""

import json
from base64 import b64decode, b64encode
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
from browser import PHONE, WIDE, browser, resize, served
from PIL import Image

from tf_groupvit import Tokenizer
from tf_groupvit.export.portable import SHARPENING
from tf_groupvit.files import EXIF_ORIENTATION
from tf_groupvit.hub import DEMO, demo_checkpoint
from tf_groupvit.preprocessing.image_arrays import resize_bicubic
from tf_groupvit.segmentation.segmenter import Segmenter

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
VOCABULARIES = ROOT / "tests" / "golden" / "tokenizer"
PATIENCE = 60  # seconds: machines that test are busy
LABELS = """
const done = arguments[0];
import("./page.js").then(({ current }) => done(btoa(String.fromCharCode(...current().map))));
"""
IDS = """
const [file, texts, done] = arguments;
import("./tokenizer.js").then(({ Tokenizer }) => {
  const tokenizer = new Tokenizer(JSON.parse(file));
  done(texts.map((text) => tokenizer.encode(text)));
});
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory, driver):
    """A folder with the page in a folder below; without the runtime where it cannot be fetched."""
    pytest.importorskip("tf2onnx", reason="tf2onnx: not installed; the extra onnx brings it")
    build = run_path(str(ROOT / "serving" / "browser" / "build.py"))
    root = tmp_path_factory.mktemp("site")
    page = root / "some" / "folder"
    page.mkdir(parents=True)
    try:
        build["fetch_runtime"](page)
    except OSError as error:
        pytest.skip(str(error))
    build["write_page"](page, None, None)
    return root


@pytest.fixture(scope="module")
def address(folder):
    with served(folder) as root:
        yield f"{root}some/folder/"


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.from_pretrained(demo_checkpoint(), DEMO / "classes.txt")


DROP = """
new OffscreenCanvas(8, 6).getContext("2d").canvas.convertToBlob().then((blob) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([blob], "photo.png", { type: "image/png" }));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
});
"""
SQUARE = """
const [bytes, width, height, done] = arguments;
import("./pixels.js").then(({ square }) => {
  const data = Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0));
  done(btoa(String.fromCharCode(...square({ data, width, height }, 20, 24))));
});
"""


class Visitor:
    """Somebody at the page."""

    def __init__(self, driver, address):
        self.driver, self.address = driver, address

    def open(self, width=WIDE, height=1500, address=None):
        resize(self.driver, width, height)
        self.driver.get(address or self.address)

    def wait_for_model(self):
        self.wait(lambda: self.find("#segment:enabled"), "the model did not load")

    def said_of_window(self):
        """Its width, its address, and whether its model is loaded."""
        return self.driver.execute_script(
            "return [innerWidth, location.href, !!document.querySelector('#segment:enabled')]"
        )

    def wait(self, condition, what):
        from selenium.webdriver.support.ui import WebDriverWait

        patient = WebDriverWait(self.driver, PATIENCE, 0.05)
        return patient.until(lambda _: condition(), f"{what}; the page says: {self.said()}")

    def find(self, selector):
        return self.driver.find_elements("css selector", selector)

    def said(self):
        return self.driver.execute_script(
            "return [...document.querySelectorAll('#status, #problem')]"
            ".map((one) => one.textContent).join(' ').trim()"
        )

    def told(self, words):
        self.wait(lambda: words in self.said(), f"expected {words!r}")
        return self.said()

    def type(self, words):
        box = self.find("#classes")[0]
        box.clear()
        box.send_keys(words)
        return box

    def segment(self):
        self.forget()
        self.find("#segment")[0].click()

    def forget(self):
        self.driver.execute_script(
            "for (const part of ['status', 'problem']) document.getElementById(part).textContent = ''"
        )

    def example(self, number):
        """Choose an example: its picture, and its words."""
        self.forget()
        self.find(f"#examples button:nth-child({number})")[0].click()
        self.told("Segmented 256x256 pixels: ")
        return self.find("#classes")[0].get_property("value")

    def labels(self):
        found = np.frombuffer(b64decode(self.driver.execute_async_script(LABELS)), np.uint8)
        return found.reshape(256, 256)

    def legend(self):
        return [element.text for element in self.find("#regions li")]


@pytest.fixture(scope="module")
def loaded(driver, address):
    return Visitor(driver, address)


@pytest.fixture
def visitor(loaded):
    """Somebody at a page that others used before, and that opens anew only for a reason."""
    if loaded.said_of_window() != [WIDE, loaded.address, True]:
        loaded.open()
        loaded.wait_for_model()
    loaded.forget()
    return loaded


def agreement(segmenter, image, visitor):
    return (segmenter(image).labels == visitor.labels()).mean()


@pytest.fixture
def scenes(folder):
    page = folder / "some" / "folder"
    rows = json.loads((page / "page.json").read_text())["examples"]
    return [np.array(Image.open(page / row["file"])) for row in rows]


@pytest.mark.parametrize("refine", [SHARPENING, None])
def test_labels_are_those_of_python_for_every_example(refine, visitor, segmenter, scenes):
    visitor.open()
    visitor.wait_for_model()
    if refine is None:
        visitor.find("#refine")[0].click()
    for number, image in enumerate(scenes, 1):
        words = visitor.example(number)
        expected = segmenter.with_classes(words).with_choices(refine=refine)
        assert agreement(expected, image, visitor) >= 0.995
        assert set(visitor.legend()) <= set(words.split(", "))
    visitor.open()


def test_typed_classes_are_encoded_in_the_page(visitor, segmenter, scenes):
    from selenium.webdriver import Keys

    visitor.example(1)
    visitor.forget()
    visitor.type("moon|new moon, A Blue Sky,ring").send_keys(Keys.SHIFT, Keys.ENTER)
    visitor.told("Segmented")
    other = segmenter.with_classes("moon|new moon,A Blue Sky,ring")
    assert agreement(other.with_choices(refine=SHARPENING), scenes[0], visitor) >= 0.995
    assert set(visitor.legend()) <= {"moon", "A Blue Sky", "ring"}
    areas = visitor.find("#areas")[0].text
    assert "Part of the picture that each class covers" in areas and "%" in areas


@pytest.mark.parametrize(("height", "width"), [(20, 24), (7, 90), (150, 31), (3, 2), (41, 300)])
def test_pictures_are_resized_to_the_pixels_of_python(height, width, visitor):
    image = np.random.default_rng(height).integers(0, 256, (height, width, 4), np.uint8)
    given = b64encode(image.tobytes()).decode(), width, height
    found = b64decode(visitor.driver.execute_async_script(SQUARE, *given))
    expected = resize_bicubic(image[..., :3].copy(), 20, 24)
    assert np.array_equal(np.frombuffer(found, np.uint8).reshape(20, 24, 3), expected)


@pytest.mark.parametrize("name", ["toy", "trained", "listed", "demo"])
def test_the_tokenizer_of_the_page_gives_the_ids_of_python(name, visitor, tmp_path):
    tokenizer = Tokenizer.from_pretrained(
        DEMO if name == "demo" else VOCABULARIES / "vocabularies" / name
    )
    tokenizer.save_pretrained(tmp_path)
    texts = json.loads((VOCABULARIES / "trained.json").read_text())["texts"]
    file = (tmp_path / "tokenizer.json").read_text()
    found = visitor.driver.execute_async_script(IDS, file, texts)
    expected = tokenizer.backend.encode_batch(texts, add_special_tokens=False)
    for text, ids, encoding in zip(texts, found, expected, strict=True):
        assert ids == encoding.ids, text


def test_groups_are_a_view_with_the_class_that_each_is_closest_to(visitor, segmenter, scenes):
    words = visitor.example(3)
    assert len(visitor.find("#view input")) == 2  # one stage
    visitor.find("#view input[value='Groups of stage 1']")[0].click()
    assert visitor.legend() and all(": " in name for name in visitor.legend())
    result = segmenter.with_classes(words)(scenes[2])
    assert (result.final_group == visitor.labels()).mean() >= 0.995
    best = [f"group {n}: {classes[0][0]}" for n, classes in enumerate(result.group_classes(1))]
    assert set(visitor.legend()) <= set(best)
    visitor.find("#view input[value='Classes']")[0].click()


def test_a_file_that_is_no_image_shows_a_message_in_words(visitor, tmp_path):
    visitor.example(1)
    bad = tmp_path / "broken.png"
    bad.write_bytes(b"no picture at all")
    visitor.find("#photo input")[0].send_keys(str(bad))
    said = visitor.told("broken.png is no image that this browser reads: choose a PNG")
    assert "The result shown is still the previous one." in said
    assert visitor.find("#problem [role=alert]") and visitor.legend()


def test_a_chosen_file_is_turned_as_its_exif_says_and_segmented_at_its_size(visitor, tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    Image.new("RGB", (30, 2100), "green").save(tmp_path / "wide.jpg", exif=exif)
    visitor.type("grass")
    visitor.find("#photo input")[0].send_keys(str(tmp_path / "wide.jpg"))
    visitor.told("Segmented 2100x30 pixels: grass 100%.")
    canvas = visitor.find("#regions canvas")[0]
    assert [canvas.get_property(side) for side in ("width", "height")] == [1050, 15]


def test_a_photo_is_dropped_anywhere_on_the_page(visitor):
    visitor.type("sky")
    visitor.driver.execute_script(DROP)
    visitor.told("Segmented 8x6 pixels: sky 100%.")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (" ", "There are no classes yet: type some words"),
        (",".join(map(str, range(257))), "There are 257 classes: at most 256 fit"),
        ("dog, cat, dog", "The class dog is there twice"),
        ("dog, sofa|", "A class has an empty name"),
    ],
)
def test_classes_that_cannot_be_used_are_refused_in_words(visitor, words, message):
    visitor.example(1)
    box = visitor.type("")
    visitor.driver.execute_script("arguments[0].value = arguments[1]", box, words)
    visitor.segment()
    visitor.told(message)


def test_a_photo_that_is_missing_is_asked_for(visitor):
    visitor.open()
    visitor.wait_for_model()
    visitor.segment()
    assert visitor.told("There is no photo yet: drop one") and not visitor.legend()


def test_all_of_it_is_reached_by_keyboard_and_has_a_name(visitor):
    from selenium.webdriver import ActionChains, Keys

    visitor.example(2)
    visitor.driver.execute_script("document.activeElement.blur()")
    seen = []
    for _ in range(20):
        ActionChains(visitor.driver).send_keys(Keys.TAB).perform()
        focused = visitor.driver.switch_to.active_element
        assert focused.accessible_name or focused.tag_name in ("body", "html")
        if focused in seen:
            break
        seen.append(focused)
    assert {one.get_attribute("id") for one in seen} >= {"open", "classes", "refine", "segment"}
    entries = visitor.find("#regions li button")
    assert set(entries) <= set(seen) and set(visitor.find("#examples button")) <= set(seen)
    visitor.driver.execute_script("arguments[0].focus()", entries[0])
    assert "lit" in entries[0].get_attribute("class")


def test_on_a_phone_nothing_scrolls_sideways_and_the_result_comes_into_view(visitor):
    visitor.open(PHONE, 844)
    visitor.wait_for_model()
    visitor.example(4)
    visitor.type("long" * 40 + ", star")
    visitor.segment()
    visitor.told("Segmented")
    wide = "return document.documentElement.scrollWidth"
    assert visitor.driver.execute_script(wide) == PHONE
    top = "return document.querySelector('#regions canvas').getBoundingClientRect().top"
    visitor.wait(lambda: 0 <= visitor.driver.execute_script(top) < 400, "out of sight")


def test_the_camera_takes_a_photo(visitor):
    visitor.find("#open")[0].click()
    shows = "return document.querySelector('video').readyState >= 2"
    visitor.wait(lambda: visitor.driver.execute_script(shows), "the camera shows nothing")
    visitor.find("#take")[0].click()
    visitor.told("Segmented")
    assert not visitor.find("video")[0].is_displayed()


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("WebAssembly", "This browser has no WebAssembly"),
        ("navigator.mediaDevices.getUserMedia", "There is no camera that this page may use"),
    ],
)
def test_what_a_browser_lacks_is_said_in_words(driver, address, without, message):
    place, _, name = f"window.{without}".rpartition(".")
    script = {"source": f"Object.defineProperty({place}, '{name}', {{ value: undefined }})"}
    added = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
    try:
        visitor = Visitor(driver, address)
        visitor.open()
        if "camera" in message:
            visitor.wait_for_model()
            visitor.find("#open")[0].click()
        visitor.told(message)
    finally:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_a_page_that_was_opened_as_a_file_says_what_it_needs(driver, folder):
    visitor = Visitor(driver, (folder / "some" / "folder" / "index.html").as_uri())
    visitor.open()
    visitor.told("This page needs a server of files, e.g. python -m http.server")
    assert visitor.find("#status p")[0].is_displayed()


@pytest.mark.parametrize("name", ["model/text.onnx", "ort.wasm.bundle.min.mjs"])
def test_a_file_that_is_missing_is_named(driver, folder, address, name):
    broken = folder / name.replace("/", "-")
    for file in (folder / "some" / "folder").rglob("*"):
        place = broken / file.relative_to(folder / "some" / "folder")
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.is_file() and not str(file).endswith(name):
            place.symlink_to(file)
    visitor = Visitor(driver, address)
    visitor.open(address=address.replace("some/folder", broken.name))
    visitor.told(f"{name} is missing beside this page: build the page anew with scripts/build.")
