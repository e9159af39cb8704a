"""Alignment compared with least squares, and loading with the colours that were written."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.registry import TRANSFORMS
from PIL import Image

from mmdet_ext.face.transforms import AlignFace, LoadFace
from mmdet_ext.face.transforms.align import TEMPLATE, scaled_template, similarity_transform

FACE = np.array(TEMPLATE)


def least_squares(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Solve the linear least squares problem in the four unknowns of a similarity."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        values += [u, v]
    a, b, c, d = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return np.array([[a, -b, c], [b, a, d]])


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Compute equations 40 to 43 of the paper by a singular value decomposition."""
    s, t = source - source.mean(0), target - target.mean(0)
    u, d, vt = np.linalg.svd(t.T @ s / len(s))
    sign = np.array([1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (d * sign).sum() / (s**2).sum(1).mean()
    shift = target.mean(0) - scale * rotation @ source.mean(0)
    return np.column_stack([scale * rotation, shift])


def turned(points: np.ndarray, angle: float, scale: float, shift: tuple[float, float]):
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return points @ np.array([[c, -s], [s, c]]).T + shift


@pytest.mark.parametrize('seed', range(20))
def test_equals_least_squares_and_the_paper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = rng.normal(0, 50, (2, int(rng.integers(2, 9)), 2))
    matrix = similarity_transform(source, target)
    np.testing.assert_allclose(matrix, least_squares(source, target), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(matrix, umeyama(source, target), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('angle', [0.0, 0.3, -2.0, np.pi])
@pytest.mark.parametrize('scale', [0.01, 1.0, 30.0])
def test_a_known_similarity_is_recovered(angle: float, scale: float) -> None:
    matrix = similarity_transform(turned(FACE, angle, scale, (1000, -20)), FACE)
    expected = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
    np.testing.assert_allclose(matrix[:, :2], expected, rtol=1e-8, atol=1e-8 / scale)


def test_mirrored_points_are_not_reflected() -> None:
    matrix = similarity_transform(FACE * (-1, 1), FACE)
    assert np.linalg.det(matrix[:, :2]) > 0
    np.testing.assert_allclose(matrix, umeyama(FACE * (-1, 1), FACE), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ('source', 'target', 'message'),
    [
        (np.full((5, 2), 7.0), FACE, 'all source points are equal'),
        (
            np.full((5, 2), 1e6) + np.arange(10).reshape(5, 2) * 1e-3,
            FACE,
            'source points are equal',
        ),
        (np.where(FACE > 90, np.nan, FACE), FACE, 'not finite'),
        (FACE, np.where(FACE > 90, np.inf, FACE), 'not finite'),
        (FACE[:4], FACE, r'got \(4, 2\) and \(5, 2\)'),
        (FACE[:1], FACE[:1], 'N at least 2'),
        (
            np.array([[1, 0], [-1, 0], [0, 1], [0, -1]]),
            np.array([[1, 0], [-1, 0], [0, -1], [0, 1]]),
            'the best scale is 0',
        ),
    ],
)
def test_degenerate_points(source: np.ndarray, target: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        similarity_transform(source, target)


def test_template_of_other_sizes() -> None:
    np.testing.assert_allclose(scaled_template((112, 112)), FACE)
    np.testing.assert_allclose(scaled_template((224, 224)), FACE * 2)
    np.testing.assert_allclose(
        scaled_template((96, 112)), FACE - (8, 0)
    )  # the template of SphereFace


def spots(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Draw an image with a bright spot of a different colour at each point."""
    y, x = np.mgrid[:height, :width]
    bumps = [np.exp(-((x - px) ** 2 + (y - py) ** 2) / 18) for px, py in points]
    colours = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1)])
    return np.clip(255 * np.tensordot(np.stack(bumps, -1), colours, 1), 0, 255).astype(np.uint8)


@pytest.mark.parametrize('key', ['landmarks', 'keypoints'])
def test_landmarks_move_to_the_template_also_in_the_image(key: str) -> None:
    landmarks = turned(FACE, 0.4, 1.6, (90, 30))
    results = AlignFace()({'img': spots(landmarks, 300, 320), key: landmarks, 'img_path': 'a.jpg'})
    assert results['img'].dtype == np.uint8 and results['img_shape'] == (112, 112)
    np.testing.assert_allclose(results[key], FACE, atol=1e-4)
    colours = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1)])
    for point, colour in zip(FACE, colours, strict=True):
        x, y = np.rint(point).astype(int)
        assert (results['img'][y, x][colour == 1] > 200).all()
        assert (results['img'][y, x][colour == 0] < 30).all()
    moved = landmarks @ results['align_matrix'][:, :2].T + results['align_matrix'][:, 2]
    np.testing.assert_allclose(moved, FACE, atol=1e-9)


def test_an_aligned_face_is_unchanged_and_the_outside_is_black() -> None:
    image = np.random.default_rng(0).integers(1, 255, (112, 112, 3), dtype=np.uint8)
    kept = AlignFace()(dict(img=image, landmarks=FACE[None].astype(np.float32)))
    assert np.abs(kept['img'].astype(int) - image).max() <= 1
    assert kept['landmarks'].shape == (1, 5, 2)
    moved = AlignFace()(dict(img=image, landmarks=FACE - (50, 0)))['img']
    assert (moved[:, :49] == 0).all() and moved[:, 51:].min() > 0


def test_size_is_width_and_height() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    align = TRANSFORMS.build(dict(type='mmdet_ext.AlignFace', size=(96, 112)))
    assert align(dict(img=image, landmarks=FACE))['img'].shape == (112, 96, 3)
    own = AlignFace(size=(50, 40), template=FACE / 4)
    np.testing.assert_allclose(
        own(dict(img=image, landmarks=FACE))['landmarks'], FACE / 4, atol=1e-5
    )


@pytest.mark.parametrize(
    ('landmarks', 'message'),
    [
        (None, r'b\.jpg: AlignFace needs its five landmarks .* there are img, img_path'),
        (FACE[:4], r'b\.jpg: landmarks must be 5 points .* shape \(4, 2\)'),
        (np.stack([FACE, FACE]), r'b\.jpg: landmarks must be 5 points .* shape \(2, 5, 2\)'),
        (np.zeros((5, 2)), r'b\.jpg: landmarks \[\[0.0, 0.0\].* cannot be aligned: all source'),
        (FACE * np.nan, r'b\.jpg: .* not finite'),
    ],
)
def test_wrong_landmarks_name_the_image(landmarks: np.ndarray | None, message: str) -> None:
    results = dict(img=np.zeros((9, 9, 3), np.uint8), img_path='b.jpg')
    if landmarks is not None:
        results['landmarks'] = landmarks
    with pytest.raises(ValueError, match=message):
        AlignFace()(results)


def test_wrong_options_of_align() -> None:
    with pytest.raises(ValueError, match='size must be a width and a height'):
        AlignFace(size=(0, 112))
    with pytest.raises(ValueError, match=r'whole numbers of at least 1 px; got \(112\.5, 112\)'):
        AlignFace(size=(112.5, 112))
    assert AlignFace(size=56).size == (56, 56)
    with pytest.raises(ValueError, match='template must be 5 points'):
        AlignFace(template=[[0, 0]])


@pytest.fixture(scope='module')
def colours() -> np.ndarray:
    """Make a smooth image, RGB, that lossy formats change by a few levels at most."""
    small = np.random.default_rng(0).integers(40, 215, (3, 3, 3), dtype=np.uint8)
    return cv2.resize(small, (40, 48), interpolation=cv2.INTER_LINEAR)


def loaded(path: Path, **options: object) -> np.ndarray:
    results = LoadFace(**options)(dict(img_path=str(path)))
    image = results['img']
    assert image.dtype == np.uint8 and image.shape[2:] == (3,)
    assert results['img_shape'] == results['ori_shape'] == image.shape[:2]
    return image


def far(image: np.ndarray, expected: np.ndarray) -> int:
    return int(np.abs(image.astype(int) - expected.astype(int)).max())


@pytest.mark.parametrize(
    ('mode', 'name', 'tolerance'),
    [
        ('RGB', 'a.png', 0),
        ('RGB', 'a.bmp', 0),
        ('RGB', 'a.jpg', 8),
        ('CMYK', 'a.jpg', 8),
        ('CMYK', 'a.tif', 1),
        ('L', 'a.pgm', 0),
        ('L', 'a.png', 0),
        ('LA', 'a.png', 0),
        ('RGBA', 'a.png', 0),
    ],
)
def test_images_of_all_formats_keep_their_colours(
    tmp_path: Path, colours: np.ndarray, mode: str, name: str, tolerance: int
) -> None:
    image = Image.fromarray(colours).convert(mode)
    image.save(tmp_path / name, quality=95)
    expected = np.asarray(image.convert('RGB'))[..., ::-1]
    assert far(loaded(tmp_path / name), expected) <= tolerance
    stock = LoadImageFromFile()(dict(img_path=str(tmp_path / name)))['img']
    assert far(loaded(tmp_path / name), stock) == 0


def test_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    frames = [Image.new('L', (8, 6), value) for value in (30, 200)]
    frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
    assert (loaded(tmp_path / 'a.gif') == 30).all()


def test_exif_orientation_is_followed(tmp_path: Path) -> None:
    image = Image.fromarray(np.repeat([[0], [255]], 8, axis=1).repeat(8, axis=0).astype(np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # rotate clockwise: the dark upper half moves to the right
    image.save(tmp_path / 'a.jpg', exif=exif)
    turned_image = loaded(tmp_path / 'a.jpg')
    assert turned_image.shape == (8, 16, 3)
    assert turned_image[:, 9:].max() < 30 and turned_image[:, :7].min() > 225


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    values = np.array([[0, 257, 385, 386, 32768, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / 'a.png'), values)
    assert loaded(tmp_path / 'a.png')[0, :, 0].tolist() == [0, 1, 1, 2, 128, 255]


def test_twelve_bits_in_sixteen_are_refused_unless_white_is_given(tmp_path: Path) -> None:
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), np.array([[0, 2048, 4095]], np.uint16))
    with pytest.raises(ValueError, match=r'a\.png: .* largest value is 4095.*white=4095'):
        loaded(path)
    assert loaded(path, white=4095)[0, :, 1].tolist() == [0, 128, 255]
    assert loaded(path, white=1024)[0, :, 1].tolist() == [0, 255, 255]
    stock = LoadImageFromFile()(dict(img_path=str(path)))['img']
    assert stock.max() == 15  # of 255: nearly black, without a warning


@pytest.mark.parametrize('kind', ['empty', 'text', 'cut', 'float', 'absent'])
def test_broken_images_name_their_file(tmp_path: Path, colours: np.ndarray, kind: str) -> None:
    path = tmp_path / ('x.tiff' if kind == 'float' else 'x.jpg')
    if kind == 'float':
        cv2.imwrite(str(path), colours.astype(np.float32))
    elif kind == 'cut':
        cv2.imwrite(str(path), colours)
        path.write_bytes(path.read_bytes()[:200])
    elif kind != 'absent':
        path.write_bytes(b'' if kind == 'empty' else b'no image')
    message = dict(empty='file is empty', float='pixels are float32', absent='is not there').get(
        kind, 'no image that OpenCV'
    )
    with pytest.raises((ValueError, FileNotFoundError), match=rf'x\.\w+: .*{message}'):
        loaded(path)


def test_an_image_that_is_loaded_is_passed_on() -> None:
    img = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    results = LoadFace()(dict(img=img, img_path='train.rec#12'))
    assert results['img'] is img and results['img_path'] == 'train.rec#12'
    assert results['img_shape'] == results['ori_shape'] == (2, 4)
    kept = LoadFace()(dict(img=img, img_shape=(2, 4), ori_shape=(8, 8)))
    assert (kept['img_shape'], kept['ori_shape']) == ((2, 4), (8, 8))


def test_wrong_white() -> None:
    with pytest.raises(ValueError, match=r'white must be in 1 \.\. 65535 or None, got 0'):
        LoadFace(white=0)


def test_orl_images_are_grey_in_three_channels(shared_data: Path) -> None:
    path = shared_data / 'orl' / 's1' / '1.pgm'
    image = loaded(path)
    content = path.read_bytes()
    values = np.frombuffer(content[-92 * 112 :], np.uint8).reshape(112, 92)
    assert (image == values[..., None]).all()
