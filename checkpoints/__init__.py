"""Read and write weights folders: networks, their architecture, and the unit of their depth."""
from checkpoints.architecture import load_model
from checkpoints.training_camera import TrainingCamera
from checkpoints.weights import InputFormat, load_weights, save_weights

__all__ = ["InputFormat", "TrainingCamera", "load_model", "load_weights", "save_weights"]
