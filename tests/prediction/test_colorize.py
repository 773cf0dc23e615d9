"""prediction.write.colorize: disparities in the colours of matplotlib's magma."""
import numpy as np

from prediction.write import colorize


def test_near_is_bright_and_far_is_dark():
    picture = colorize(np.linspace(0, 1, 100)[None].repeat(4, 0))
    assert picture.shape == (4, 100, 3)
    brightness = picture.astype(int).sum(2)
    assert (np.diff(brightness[0]) >= -3).all()
    assert brightness[0, 0] < 20
    assert brightness[0, -1] > 600


def test_colours_are_magma_and_the_brightest_5_percent_white():
    # published values of the colour map at 0, 1/2 and 1
    picture = colorize(np.append(np.linspace(0, 1, 96), [5, 6, 7, 8, 9])[None])[0]
    white = [252, 253, 191]
    np.testing.assert_allclose(picture[[0, 47, 95, 100]], [[0, 0, 4], [183, 55, 121], white, white],
                               atol=4)
