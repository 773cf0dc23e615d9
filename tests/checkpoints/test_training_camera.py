"""camera.json as people edit it."""
import json

import pytest

from checkpoints.training_camera import TrainingCamera, parse_training_camera
from runtime.errors import DataError

K = [[0.58, 0, 0.5], [0, 1.92, 0.5], [0, 0, 1]]
CAMERA = TrainingCamera("stereo", baseline=0.54, K=K, image_size=[1242, 375])


def parsed(**fields):
    return parse_training_camera(json.dumps(CAMERA._asdict() | fields).encode(), "camera.json")


def test_fields_are_read_as_written():
    assert parsed() == CAMERA
    assert parsed(K=None, baseline=None).K is None


@pytest.mark.parametrize("fields", [
    {"min_depth": True}, {"baseline": True}, {"K": [*K[:2], [0.3, 0.2, 7]]},
    {"K": [[721.5, 0, 609.6], [0, 721.5, 172.9], [0, 0, 1]]}],
    ids=["min_depth true", "baseline true", "last row of K", "K in pixels"])
def test_a_camera_that_cannot_be_is_refused(fields):
    with pytest.raises(DataError, match=r"camera\.json is broken"):
        parsed(**fields)
