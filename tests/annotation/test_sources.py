"""Sources: every kind gives its pictures by stable ids, and what is wrong is one line a source."""

import io
import json
import pickle
import tarfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from tf_groupvit.annotation.sources import Item, Problem, find_items, picture_id


@pytest.fixture(params=["disk", "memory"])
def root(request, tmp_path):
    """The address of an empty folder, on this disk or elsewhere."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return str(tmp_path / "photos") if request.param == "disk" else "memory://photos"


def put(address, content=None):
    """A file, which holds its own address unless something else is given."""
    with fsspec.open(address, "wb", auto_mkdir=True) as file:
        file.write(address.encode() if content is None else content)


def tar(*names, cut=None):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as shard:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 700
            shard.addfile(member, io.BytesIO(name.encode().ljust(700)))
    return buffer.getvalue()[:cut]


def table(rows_a_group=2, **columns):
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer, row_group_size=rows_a_group)
    return buffer.getvalue()


def found(*locations, **keywords):
    """{id: content} of the items, and (source, reason) of the problems."""
    listed = list(find_items(locations, **keywords))
    items = [one for one in listed if isinstance(one, Item)]
    assert len({item.id for item in items}) == len(items)
    contents = {item.id: pickle.loads(pickle.dumps(item)).read() for item in items}
    return contents, [(one.source, one.reason) for one in listed if isinstance(one, Problem)]


def ids(*locations, **keywords):
    contents, problems = found(*locations, **keywords)
    assert not problems
    return list(contents)


def test_a_folder_gives_its_pictures_and_recursive_those_below(root):
    for name in ("b.JPG", "a.png", "a.jpg", "notes.txt", "._a.png", "deep/x.jpg", "deep/er/x.jpg"):
        put(f"{root}/{name}")
    said = []
    contents, problems = found(root, say=said.append)
    assert list(contents) == ["a.jpg", "a.png", "b.JPG"] and not problems
    assert contents["a.png"].decode() == f"{root}/a.png"
    (words,) = said
    assert words.endswith("folders below it (deep); --recursive takes them")
    said.clear()
    assert ids(f"{root}/", recursive=True, say=said.append) == [
        *("a.jpg", "a.png", "b.JPG", "deep/x.jpg", "deep/er/x.jpg")
    ]
    assert not said


def test_names_of_several_locations_stay_apart(root):
    for name in ("one/x.jpg", "two/x.jpg", "two/x.png"):
        put(f"{root}/{name}")
    short = root.rpartition("://")[2].lstrip("/")
    assert ids(f"{root}/one", f"{root}/two") == [
        f"{short}/{name}" for name in ("one/x.jpg", "two/x.jpg", "two/x.png")
    ]
    assert ids(f"{root}/one/x.jpg", f"{root}/two") == ids(f"{root}/one", f"{root}/two")
    assert ids(f"{root}/one/x.jpg") == ["x.jpg"]


def test_patterns_are_relative_to_their_fixed_part(root):
    for name in ("a/x.jpg", "b/x.jpg", "b/y.png", "odd[1]/x.jpg"):
        put(f"{root}/{name}")
    assert ids(f"{root}/*/x.jpg") == ["a/x.jpg", "b/x.jpg", "odd[1]/x.jpg"]
    assert ids(f"{root}/b/*") == ["x.jpg", "y.png"]
    assert ids(f"{root}/odd[1]/x.jpg") == ["x.jpg"]
    contents, problems = found(f"{root}/*.tif")
    assert not contents
    assert problems == [(f"{root}/*.tif", "no file matches: check the pattern and its folder")]


def test_a_list_names_pictures_and_shards_from_its_own_folder(root):
    put(f"{root}/a/x.jpg")
    put(f"{root}/s.tar", tar("0.jpg"))
    lines = ["a/x.jpg", "", " missing.jpg ", f"{root}/a/x.jpg", "s.tar"]
    put(f"{root}/list.txt", "\r\n".join(lines).encode("utf-8-sig"))
    put(f"{root}/names.lst", b"a/x.jpg")
    listed = {one.id: one for one in find_items([f"{root}/list.txt"])}
    absolute = picture_id(f"{root}/a/x.jpg")
    assert list(listed) == ["a/x.jpg", "missing.jpg", absolute, "s.tar/0.jpg"]
    assert listed["a/x.jpg"].read() == listed[absolute].read()
    with pytest.raises(FileNotFoundError):
        listed["missing.jpg"].read()
    assert ids(f"@{root}/names.lst") == ["a/x.jpg"]


def test_a_shard_gives_its_pictures_without_their_masks_and_texts(root):
    names = [
        "0.jpg",
        "0.txt",
        "0.mask.png",
        "1.png",
        "1.jpg",
        "v1.2.jpg",
        "./deep/2.webp",
        "._3.jpg",
    ]
    put(f"{root}/s.tar", tar(*names))
    contents, problems = found(f"{root}/s.tar")
    assert list(contents) == ["0.jpg", "1.png", "1.jpg", "v1.2.jpg", "deep/2.webp"]
    assert not problems
    assert contents["1.png"] == b"1.png".ljust(700)
    put(f"{root}/t.tar", tar("0.jpg"))
    inside = ["s.tar/0.jpg", "s.tar/1.png", "s.tar/1.jpg", "s.tar/v1.2.jpg", "s.tar/deep/2.webp"]
    assert ids(root) == [*inside, "t.tar/0.jpg"]


@pytest.mark.parametrize("cut", [1300, 1024, 600, 100, 0])
def test_of_a_shard_that_is_cut_short_the_whole_pictures_are_given(root, cut):
    put(f"{root}/s.tar", tar("0.jpg", "1.jpg", cut=cut))
    put(f"{root}/x.jpg")
    contents, problems = found(root)
    assert list(contents) == ["s.tar/0.jpg", "x.jpg"][cut < 1212 :]
    ((source, reason),) = problems
    assert source == "s.tar" and reason.startswith("the shard is cut short or damaged")


def test_rows_of_parquet_are_bytes_or_addresses(root):
    put(f"{root}/a.jpg", b"A")
    put(f"{root}/bytes.parquet", table(jpg=[b"0", b"1", b"2", None]))
    with pytest.raises(Exception, match="its row holds no picture"):
        found(f"{root}/bytes.parquet")
    put(f"{root}/bytes.parquet", table(jpg=[b"0", b"1", b"2"]))
    assert found(f"{root}/bytes.parquet") == ({"0": b"0", "1": b"1", "2": b"2"}, [])
    unnamed = table(id=["p", None, ""], jpg=[b"0", b"1", b"2"])
    put(f"{root}/unnamed.parquet", unnamed)
    assert found(f"{root}/unnamed.parquet")[0] == {"p": b"0", "1": b"1", "2": b"2"}
    named = table(
        id=["p", "q", "r"], url=["a.jpg", f"{root}/a.jpg", "a.jpg"], other=[b"", b"", b""]
    )
    put(f"{root}/named.parquet", named)
    assert found(f"{root}/named.parquet")[0] == {"p": b"A", "q": b"A", "r": b"A"}
    both = table(image=[{"bytes": b"0", "path": None}, {"bytes": None, "path": "a.jpg"}])
    put(f"{root}/both.parquet", both)
    assert found(f"{root}/both.parquet")[0] == {"0": b"0", "1": b"A"}
    assert ids(root)[:4] == ["a.jpg", "both.parquet/0", "both.parquet/1", "bytes.parquet/0"]


def test_of_a_manifest_of_something_else_only_the_start_is_read(tmp_path, monkeypatch):
    """It can be of any size."""
    put(f"{tmp_path}/photos/a.jpg")
    put(f"{tmp_path}/photos/manifest.json", b"[" + b"0, " * 1000 + b"0]")
    whole, read = LocalFileSystem.cat_file, []

    def noted(self, path, *arguments, **keywords):
        content = whole(self, path, *arguments, **keywords)
        read.append(len(content))
        return content

    monkeypatch.setattr(LocalFileSystem, "cat_file", noted)
    listed = list(find_items([f"{tmp_path}/photos"]))
    assert [item.id for item in listed] == ["a.jpg"]
    assert read and max(read) < 1000


def test_a_file_that_takes_the_place_of_another_is_read_anew(root):
    for content in (b"one", b"another"):
        put(f"{root}/t.parquet", table(jpg=[content]))
        assert found(f"{root}/t.parquet") == ({"0": content}, [])


def test_parquet_without_pictures_says_what_it_has(root):
    put(f"{root}/t.parquet", table(size=[1], name=["x"]))
    for column, words in [
        (None, "that is known to be one of pictures, but size, name"),
        ("img", "'img'"),
    ]:
        _, ((_, reason),) = found(f"{root}/t.parquet", column=column)
        assert reason.startswith("it has no column") and words in reason
    _, ((_, reason),) = found(f"{root}/t.parquet", column="size")
    assert reason == "its column 'size' is int64: expected bytes or addresses of pictures"
    put(f"{root}/t.parquet", b"no parquet")
    _, ((_, reason),) = found(f"{root}/t.parquet")
    assert "arquet" in reason and "\n" not in reason


def test_what_annotate_has_written_is_never_a_source(root):
    put(f"{root}/x.jpg")
    put(f"{root}/labels/x.png")
    put(f"{root}/labels/manifest.json", json.dumps({"kind": "tf-groupvit annotate"}).encode())
    put(f"{root}/other/manifest.json", b'{"kind": "else"}')
    put(f"{root}/other/y.jpg")
    said = []
    assert ids(root, recursive=True, say=said.append) == ["x.jpg", "other/y.jpg"]
    assert said == ["Left out: 'labels', which annotate has written"]
    assert ids(root, say=said.append) == ["x.jpg"] and "(other)" in said[1]
    _, ((_, reason),) = found(f"{root}/labels")
    assert reason == "annotate has written this folder: name that of the pictures"


def test_a_pattern_or_a_shell_does_not_find_what_annotate_has_written(root):
    put(f"{root}/a/x.jpg")
    put(f"{root}/labels/manifest.json", json.dumps({"kind": "tf-groupvit annotate"}).encode())
    for name in ("0.png", "1.png"):
        put(f"{root}/labels/png/masks/{name}")
    said = []
    assert ids(f"{root}/**/*.*g", say=said.append) == ["a/x.jpg"]
    (words,) = said
    assert words.endswith("photos/labels', which annotate has written")
    named = [f"{root}/a/x.jpg", f"{root}/labels/png/masks/0.png"]
    assert len(ids(*named)) == 1
    _, ((_, reason),) = found(f"{root}/labels/png/masks")
    assert reason == "annotate has written this folder: name that of the pictures"
    assert len(ids(f"{root}/*", recursive=True)) == 1


def test_a_shard_that_cannot_be_read_costs_only_itself(root):
    put(f"{root}/a.parquet", b"no parquet")
    put(f"{root}/b.jpg")
    put(f"{root}/deep/a.parquet", b"no parquet")
    put(f"{root}/deep/b.jpg")
    put(f"{root}/list.txt", b"a.parquet\nnope://x\nb.jpg\n")
    for sources in ([root], [f"{root}/**"], [f"{root}/list.txt"]):
        contents, problems = found(*sources, recursive="**" not in sources[0])
        assert next(iter(contents)) == "b.jpg" and len(problems) == 2, sources
        assert problems[0][0] == "a.parquet"


def test_a_folder_that_may_not_be_read_costs_only_itself(tmp_path, monkeypatch):
    put(f"{tmp_path}/photos/a/x.jpg")
    put(f"{tmp_path}/photos/b/x.jpg")
    put(f"{tmp_path}/photos/y.jpg")
    whole = LocalFileSystem.ls

    def ls(self, path, *arguments, **keywords):
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return whole(self, path, *arguments, **keywords)

    monkeypatch.setattr(LocalFileSystem, "ls", ls)
    contents, problems = found(f"{tmp_path}/photos", recursive=True)
    assert list(contents) == ["y.jpg", "b/x.jpg"]
    assert problems == [("a", "Permission denied")]
    assert ids(f"{tmp_path}/photos") == ["y.jpg"]


def test_a_link_to_itself_costs_only_itself(tmp_path):
    put(f"{tmp_path}/photos/x.jpg")
    (tmp_path / "photos" / "a.jpg").symlink_to("a.jpg")
    for pattern in ("", "/*"):
        listed = {one.id: one for one in find_items([f"{tmp_path}/photos{pattern}"])}
        assert list(listed) == ["a.jpg", "x.jpg"]
        with pytest.raises(OSError, match="symbolic links"):
            listed["a.jpg"].read()


def test_a_location_that_is_not_there_costs_only_itself(root):
    put(f"{root}/x.jpg")
    contents, problems = found(f"{root}/nothing", root, "nope://x", "")
    assert [item_id.rpartition("/")[2] for item_id in contents] == ["x.jpg"]
    assert problems[0] == (f"{root}/nothing", "there is no such file or folder")
    assert problems[1][1].startswith("'nope://x' cannot be opened: Protocol not known")
    assert "a location is empty" in problems[2][1]


def test_ids_never_lead_out_of_a_folder_and_are_always_text():
    assert picture_id("/a/./b//../x.jpg") == "a/b/x.jpg"
    assert picture_id("s3://bucket/a", "x.jpg") == "bucket/a/x.jpg"
    assert picture_id("..") == "image"
    assert picture_id("a\udcff.jpg") == "a\\udcff.jpg"


def test_links_to_pictures_are_pictures_and_links_to_folders_are_not_followed(tmp_path):
    put(f"{tmp_path}/photos/x.jpg")
    (tmp_path / "photos" / "again").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "y.jpg").symlink_to("x.jpg")
    (tmp_path / "photos" / "z.jpg").symlink_to("gone.jpg")
    listed = {one.id: one for one in find_items([f"{tmp_path}/photos"], recursive=True)}
    assert list(listed) == ["x.jpg", "y.jpg", "z.jpg"]
    assert listed["y.jpg"].read() == listed["x.jpg"].read()
