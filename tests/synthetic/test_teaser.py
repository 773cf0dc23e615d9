"""synthetic/teaser.py: the film of depth."""
from pathlib import Path

import numpy as np
import pytest
from conftest import HEIGHT, WIDTH
from PIL import Image

from prediction.predictor import Predictor
from prediction.write import colorize
from synthetic.render import FPS, HELD_OUT
from synthetic.teaser import (
    BACKGROUND,
    BRIGHTEST,
    CLOSEST,
    PATH_COLOUR,
    VIEW_HEIGHT,
    chasing_pose,
    draw_cloud,
    film_frames,
    write_film,
)

RED, GREEN = (250, 10, 10), (10, 250, 10)
NO_PATH = np.zeros((0, 3))
FILM = Path(__file__).parents[2] / "docs/teaser.webp"


def draw(points, colours, path=NO_PATH, pose=None):
    return draw_cloud(np.reshape(points, (-1, 3)).astype(np.float32),
                      np.reshape(colours, (-1, 3)).astype(np.uint8), path,
                      np.eye(4) if pose is None else pose, 60, 80)


def test_a_point_straight_ahead_is_drawn_in_the_middle():
    picture = draw([0, 0, 5], RED)
    v, u = np.nonzero((picture == RED).all(-1))
    assert abs(v - 30).max() <= 1
    assert abs(u - 40).max() <= 1


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_near_points_hide_far_points(order):
    points, colours = np.array([[0, 0, 5], [0, 0, 9]])[order], np.array([RED, GREEN])[order]
    assert (draw(points, colours)[30, 40] == RED).all()


def test_right_is_right_and_down_is_down():
    v, u = np.nonzero((draw([1, 0.5, 5], RED) == RED).all(-1))
    assert v.min() > 31
    assert u.min() > 41


@pytest.mark.parametrize("z", [-5, 0, 0.99 * CLOSEST])
def test_points_behind_the_camera_are_left_out(z):
    assert (draw([0, 0, z], RED) == BACKGROUND).all()


def test_points_beside_the_picture_are_left_out():
    assert (draw([[50, 0, 5], [0, -50, 5]], [RED, RED]) == BACKGROUND).all()


def test_near_points_fill_larger_squares():
    near, far = ((draw([0, 0, z], RED) == RED).all(-1).sum() for z in (1.1, 30))
    assert far == 1
    assert near > 4


def test_the_path_is_drawn_over_the_cloud():
    picture = draw([0, 0, 2], RED, np.array([[0, 0, 3], [0, 0, 9.0]]))
    assert (picture[30, 40] == PATH_COLOUR).all()


def test_the_chasing_camera_sees_its_car_ahead_and_below():
    pose = np.eye(4)
    pose[:3, 3] = 3, -1, 20
    x, y, z = (np.linalg.inv(chasing_pose(pose)) @ pose)[:3, 3]
    assert x == pytest.approx(0)
    assert y > 0
    assert z > 5 * CLOSEST


def test_a_film_repeats_at_the_frame_rate_of_the_street(tmp_path):
    frames = [np.full((16, 32, 3), level, np.uint8) for level in (10, 120, 240)]
    write_film(tmp_path / "film.webp", frames)
    with Image.open(tmp_path / "film.webp") as film:
        assert (film.n_frames, film.info["loop"]) == (3, 0)
        for i, frame in enumerate(frames):
            film.seek(i)
            assert np.abs(np.asarray(film.convert("RGB"), int) - frame).max() < 6
            assert film.info["duration"] == 1000 / FPS


def test_a_frame_of_the_film_is_an_image_its_disparity_and_the_cloud(drive, weights):
    frames = list(film_frames(weights, drive, slice(4, 8)))
    path = drive / HELD_OUT / "image_02/data/0000000006.jpg"
    assert {frame.shape for frame in frames} == {(HEIGHT + VIEW_HEIGHT, 2 * WIDTH, 3)}
    np.testing.assert_array_equal(frames[2][:HEIGHT, :WIDTH], np.asarray(Image.open(path)))
    depth = Predictor(weights).predict(frames[2][:HEIGHT, :WIDTH]).depth[0, 0].numpy()
    np.testing.assert_array_equal(frames[2][:HEIGHT, WIDTH:], colorize(1 / depth, (0, BRIGHTEST)))
    drawn = [(frame[HEIGHT:] != BACKGROUND).any(-1).sum() for frame in frames]
    assert drawn[0] < drawn[-1]


def test_the_film_of_the_readme_is_short_and_small():
    with Image.open(FILM) as film:
        assert 4 <= film.n_frames / FPS <= 6
    assert FILM.stat().st_size < 2e6
