"""Build the networks of Monodepth2 and the model that assembles them."""
from networks.depth_decoder import DepthDecoder
from networks.encoders import ENCODERS
from networks.monodepth2 import Monodepth2
from networks.pose_cnn import PoseCNN
from networks.pose_decoder import PoseDecoder
from networks.resnet_encoder import ResnetEncoder

__all__ = ["ENCODERS", "DepthDecoder", "Monodepth2", "PoseCNN", "PoseDecoder", "ResnetEncoder"]
