"""Images: where they lie, and how they become patches."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from longspan.data.inputs.patches import PatchEncoding, Patches, patches, whole
from longspan.data.labelled.collection import collection
from longspan.data.labelled.contents import contents
from longspan.data.labelled.item import File, Item
from longspan.errors import CheckpointError, ConfigError, DataError

MNIST = Path("../shared/data/img_mnist/t10k-images-idx3-ubyte.gz")


def drawn(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def items(path: Path) -> list[Item]:
    return list(collection(str(path), "text", "label").items())


# -- patches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [(2, 3), (4, 6), (1, 6), (1, 1), (4, 3)])
def test_patches_are_those_of_a_loop(patch: tuple[int, int]) -> None:
    pixels = drawn(4, 6, 3)
    height, width = patch
    expected = [
        [
            pixels[row + y, column + x, channel]
            for y in range(height)
            for x in range(width)
            for channel in range(3)
        ]
        for row in range(0, 4, height)
        for column in range(0, 6, width)
    ]
    assert patches(pixels, patch).tolist() == expected


@pytest.mark.parametrize("shape", [(8, 12), (8, 12, 3)])
def test_the_model_reads_what_has_mean_0_and_deviation_1(shape: tuple[int, ...]) -> None:
    found = [Item(str(n), drawn(*shape, seed=n)) for n in range(5)]
    encoding = Patches(height=4, width=4).fit(found)
    values = np.stack(list(encoding.encode(found)))
    channels = len(shape[2:]) * 2 + 1
    assert values.shape == (5, 6, 16 * channels)
    assert encoding.features == 16 * channels
    assert encoding.size is None
    x = encoding.model_input(values).reshape(-1, channels)
    assert x.mean(0).tolist() == pytest.approx([0.0] * channels, abs=1e-5)
    assert x.std(0, correction=0).tolist() == pytest.approx([1.0] * channels, abs=1e-5)


def test_an_image_is_the_same_wherever_it_lies(tmp_path: Path) -> None:
    pixels = drawn(4, 4, 3)
    (tmp_path / "a.png").write_bytes(png(pixels))
    path = str(tmp_path / "a.png")
    encoding = Patches(height=2, width=None).fit([Item("", pixels)])
    for content in (pixels, png(pixels), path, File(path)):
        (found,) = encoding.encode([Item("", content)])
        assert found.tolist() == pixels.reshape(2, 24).tolist()


def test_training_reads_images_moved_and_mirrored() -> None:
    found = [Item(str(n), drawn(4, 6, 3, seed=n)) for n in range(40)]
    plain = Patches(height=2, width=3).fit(found)
    values = np.stack(list(plain.encode(found)))
    assert plain.varied(values, np.random.default_rng(0)) is values
    assert whole(values, (4, 6), (2, 3)).tolist() == [item.content.tolist() for item in found]

    def varied(seed: int, **choice: Any) -> NDArray[np.uint8]:
        encoding = Patches(height=2, width=3, **choice).fit(found)
        return whole(encoding.varied(values, np.random.default_rng(seed)), (4, 6), (2, 3))

    mirrored = 0
    for image, item in zip(varied(0, mirror=True), found, strict=True):
        turned = (image == item.content[:, ::-1]).all()
        assert turned or (image == item.content).all()
        mirrored += turned
    assert 10 < mirrored < 30
    moves = set()
    for image, item in zip(varied(0, shift=1), found, strict=True):
        room = np.pad(item.content, ((1, 1), (1, 1), (0, 0)))
        places = [(y, x) for y in range(3) for x in range(3)]
        (move,) = [at for at in places if (room[at[0] :, at[1] :][:4, :6] == image).all()]
        moves.add(move)
    assert len(moves) > 6
    assert (varied(3, shift=2, mirror=True) == varied(3, shift=2, mirror=True)).all()
    assert (varied(3, shift=2) != varied(4, shift=2)).any()


def test_what_was_fitted_is_kept(tmp_path: Path) -> None:
    encoding = Patches(height=2, width=2).fit([Item("", drawn(4, 4, 3))])
    encoding.save(tmp_path)
    again = PatchEncoding.load(tmp_path)
    assert again.shape == encoding.shape
    assert again.fingerprint == encoding.fingerprint
    assert again.fingerprint != Patches(height=4).fit([Item("", drawn(4, 4, 3))]).fingerprint
    (tmp_path / "pixels.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"pixels\.json: is damaged"):
        PatchEncoding.load(tmp_path)


def test_other_modes_and_sizes_are_refused_or_converted_if_asked_for() -> None:
    first, grey = Item("a.png", drawn(4, 4, 3)), Item("b.png", drawn(4, 4))
    large = Item("c.png", drawn(8, 6, 3))
    strict = Patches(height=2, width=2).fit([first])
    with pytest.raises(DataError, match=r"b\.png: is of mode L, the first .* RGB; convert it"):
        list(strict.encode([grey]))
    with pytest.raises(DataError, match=r"c\.png: is of 8 x 6 pixels, .* of 4 x 4; resize it"):
        list(strict.encode([large]))
    broad = Patches(height=2, width=2, size=(4, 4), mode="RGB").fit([first, grey, large])
    assert [each.shape for each in broad.encode([grey, large])] == [(4, 12), (4, 12)]
    odd = Item("d.png", np.dstack([drawn(4, 4, 3), drawn(4, 4)]))
    with pytest.raises(DataError, match=r"d\.png: is of mode RGBA; set data\.input\.mode"):
        Patches().fit([odd])
    with pytest.raises(DataError, match=r"c\.png: 8 x 6 pixels are no whole number of patches"):
        Patches(height=4, width=4).fit([large])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no image", "here: is no image that Pillow knows"),
        (png(drawn(40, 40))[:200], "here: is a damaged image"),
        (None, "here holds null, no image"),
        (7, "here holds int, no image"),
        ("missing.png", r"missing\.png: cannot be read"),
    ],
)
def test_what_is_no_image_is_said(content: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Patches().fit([Item("here", content)])


def test_a_channel_that_never_changes_divides_nothing() -> None:
    black = Item("", np.zeros((4, 4), np.uint8))
    encoding = Patches().fit([black])
    x = encoding.model_input(np.stack(list(encoding.encode([black]))))
    assert x.tolist() == [[[0.0] * 16]]


def test_choices_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.input\.height must be 1 or more, not 0"):
        Patches(height=0)
    with pytest.raises(ConfigError, match=r"data\.input\.size must be \[height, width\]"):
        Patches(size=(0, 4))
    with pytest.raises(ConfigError, match=r"data\.input\.mode must be 'L', 'RGB' or null"):
        Patches(mode="CMYK")  # type: ignore[arg-type]


# -- where they lie -------------------------------------------------------------------------------


def idx(folder: Path, images: NDArray[np.uint8], labels: list[int]) -> Path:
    head = bytes([0, 0, 8, 3]) + struct.pack(">3I", *images.shape)
    path = folder / "some-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(head + images.tobytes()))
    head = bytes([0, 0, 8, 1]) + struct.pack(">I", len(labels))
    (folder / "some-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + bytes(labels)))
    return path


def test_idx_files_hold_images_and_labels(tmp_path: Path) -> None:
    images = drawn(3, 5, 4)
    path = idx(tmp_path, images, [7, 0, 7])
    found = items(path)
    assert [item.label for item in found] == ["7", "0", "7"]
    assert all((item.content == image).all() for item, image in zip(found, images, strict=True))
    assert found[2].place == f"{path} image 2"
    assert len(list(contents(str(path), "text", files=True))) == 3


def test_what_is_wrong_with_idx_files_is_said(tmp_path: Path) -> None:
    path = idx(tmp_path, drawn(3, 5, 4), [7, 0])
    with pytest.raises(DataError, match=r"has 3 images and .* has 2 labels"):
        items(path)
    labels = tmp_path / "some-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 3, 1])))
    with pytest.raises(DataError, match=r"has 1 bytes, not those of \(3,\)"):
        items(path)
    labels.write_bytes(gzip.compress(b"other"))
    with pytest.raises(DataError, match="is no idx file of bytes in 1 dimensions"):
        items(path)
    labels.write_bytes(b"other")
    with pytest.raises(DataError, match="damaged, or not compressed as it is called"):
        items(path)
    labels.unlink()
    with pytest.raises(DataError, match=r"some-labels-idx1-ubyte\.gz: there is no such file"):
        items(path)


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_an_archive_holds_what_its_folders_do(tmp_path: Path) -> None:
    files = {f"./train/{label}/0.png": png(drawn(4, 4)) for label in ("cat", "dog")}
    path = archive(tmp_path / "a.tar.xz", {**files, "./train/.DS_Store": b"x"})
    found = items(path)
    assert [(item.place, item.label) for item in found] == [
        (f"{path}: train/cat/0.png", "cat"),
        (f"{path}: train/dog/0.png", "dog"),
    ]
    assert len(list(contents(str(path), "text", files=True))) == 2


def test_an_archive_of_one_class_and_of_files_with_two_names(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.xz", {f"test/cat/{n}.png": b"x" for n in range(2)})
    assert [item.label for item in items(path)] == ["cat", "cat"]
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        member = tarfile.TarInfo("cat/0.png")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
        link = tarfile.TarInfo("dog/1.png")
        link.type, link.linkname = tarfile.LNKTYPE, "cat/0.png"
        tar.addfile(link)
    found = items(tmp_path / "b.tar")
    assert [(item.label, item.content) for item in found] == [("cat", b"x"), ("dog", b"x")]


def test_what_is_wrong_with_an_archive_is_said(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.xz", {"t/cat/0.png": b"x", "t/about": b"x"})
    with pytest.raises(DataError, match="t/about lies in no folder of a class"):
        items(path)
    path.write_bytes(path.read_bytes()[:80])
    with pytest.raises(DataError, match="is no sound archive"):
        items(path)
    with pytest.raises(DataError, match="there are no files in this archive"):
        items(archive(tmp_path / "b.tar.xz", {}))
    with pytest.raises(DataError, match="there is no such file"):
        items(tmp_path / "c.tar.xz")


@pytest.mark.skipif(not MNIST.is_file(), reason="MNIST lies in ../shared/data")
def test_mnist_is_as_its_authors_say() -> None:
    found = items(MNIST)
    counts = Counter(item.label for item in found)
    assert [counts[str(digit)] for digit in range(10)] == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    encoding = Patches(height=7, width=7).fit(found)
    # the training images' are 0.1307 and 0.3081
    assert encoding.shape.mean == pytest.approx([0.1325], abs=1e-4)
    assert encoding.shape.std == pytest.approx([0.3105], abs=1e-4)
