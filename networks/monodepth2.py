"""Assemble the networks: disparity of the target frame, poses to the source frames."""
from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from layers import transformation_from_parameters
from networks.depth_decoder import DepthDecoder
from networks.encoders import IMAGE_SIZE, encoder_key, make_encoder
from networks.pose_cnn import PoseCNN
from networks.pose_decoder import PoseDecoder


class Monodepth2(nn.Module):
    """Predict depth, poses and masks with networks that are trained together.

    The names of the child modules are the names of their checkpoint files. A model of frame 0 and
    the stereo view alone has no pose network.

    Args:
        num_layers: key of `ENCODERS`, for the encoders that the next two arguments do not name.
        pretrained: initialise the encoders with ImageNet weights: all of them, or those of the
            children named.
        frame_ids: 0, then the source frames: offsets in time, and "s" for the other stereo view.
        scales: scales at which disparity is predicted.
        pose_model_type: "separate_resnet", "shared" (the depth encoder's features) or "posecnn".
        pose_model_input: "pairs" of target and source frame, or "all" frames at once.
        predictive_mask: predict the mask of SfMLearner, one channel for each source frame.
        encoder: name of the depth encoder, as `make_encoder` takes it.
        pose_encoder: name of the pose encoder.
        image_size: (height, width) of the images.

    Attributes:
        encoder_names: keys of `ENCODERS` or names of the children that are encoders.
        intrinsics: a `LearnedIntrinsics` if the cameras are learned too, otherwise None.
        precision: data type in which the networks compute. Weights, outputs and geometry are
            float32 in any case.
    """

    def __init__(self, num_layers: int = 18, pretrained: bool | Collection[str] = False,
                 frame_ids: Sequence[int | str] = (0, -1, 1), scales: Sequence[int] = range(4),
                 pose_model_type: str = "separate_resnet", pose_model_input: str = "pairs",
                 predictive_mask: bool = False, encoder: str | int | None = None,
                 pose_encoder: str | int | None = None,
                 image_size: tuple[int, int] = IMAGE_SIZE):
        super().__init__()
        self.frame_ids = list(frame_ids)
        self.times = [f for f in frame_ids if f != "s"]
        self.pose_model_type, self.pose_model_input = pose_model_type, pose_model_input
        self.precision = torch.float32
        self.encoder_names = {}

        def make(child: str, name: str | int | None, frames: int = 1) -> nn.Module:
            name = self.encoder_names[child] = num_layers if name is None else encoder_key(name)
            is_pretrained = pretrained if isinstance(pretrained, bool) else child in pretrained
            return make_encoder(name, is_pretrained, frames, image_size)

        self.encoder = make("encoder", encoder)
        channels = self.encoder.num_ch_enc
        self.depth = DepthDecoder(channels, scales)
        self.pose_encoder = self.pose = self.predictive_mask = self.intrinsics = None
        if len(self.times) > 1:
            frames = 2 if pose_model_input == "pairs" else len(self.times)
            if pose_model_type == "separate_resnet":
                self.pose_encoder = make("pose_encoder", pose_encoder, frames)
                # Faithful: two poses are predicted for a pair, of which the first is used
                self.pose = PoseDecoder(self.pose_encoder.num_ch_enc, 1, max(2, frames - 1))
            elif pose_model_type == "shared":
                self.pose = PoseDecoder(channels, frames)
            else:
                self.pose = PoseCNN(frames)
        if predictive_mask:
            self.predictive_mask = DepthDecoder(channels, scales, len(self.frame_ids) - 1)

    @property
    def frames_read(self) -> list[int | str]:
        """Return the frames whose ("color_aug", f, 0) the networks read."""
        if self.pose is None:
            return [0]
        return self.frame_ids if self.pose_model_type == "shared" else self.times

    def forward(self, inputs: dict) -> dict[tuple, Tensor]:
        """Predict the disparities, poses and masks that the objective needs.

        Args:
            inputs: ("color_aug", f, 0) (B, 3, H, W) in [0, 1] for the frames in `frames_read`;
                "stereo_T" (B, 4, 4) if "s" is a source frame; what `intrinsics` reads.

        Returns:
            ("disp", s) (B, 1, H/2^s, W/2^s) in (0, 1); ("predictive_mask", s) (B, F, H/2^s, W/2^s);
            ("cam_T_cam", 0, f) (B, 4, 4), from the target camera to the source camera, for each
            source frame; ("axisangle", 0, f) and ("translation", 0, f) (B, 1, 3) for each source
            frame but "s". Learned ("K", s) and ("inv_K", s) (B, 4, 4), if the cameras are learned.
        """
        device, is_mixed = inputs["color_aug", 0, 0].device.type, self.precision != torch.float32
        with torch.autocast(device, self.precision if is_mixed else None, enabled=is_mixed):
            features = self._features(inputs)
            outputs = self.depth(features[0])
            if self.predictive_mask is not None:
                for (_, scale), mask in self.predictive_mask(features[0]).items():
                    outputs["predictive_mask", scale] = mask
            poses = self._poses(inputs, features)
        stereo_T = inputs.get("stereo_T")
        if self.intrinsics is not None:
            learned, poses, stereo_T = self.intrinsics(inputs, poses)
            outputs.update(learned)
        for f, (axisangle, translation, backward) in poses.items():
            outputs["axisangle", 0, f], outputs["translation", 0, f] = axisangle, translation
            outputs["cam_T_cam", 0, f] = transformation_from_parameters(
                axisangle, translation, invert=backward)
        if "s" in self.frame_ids:
            outputs["cam_T_cam", 0, "s"] = stereo_T
        return outputs

    def disparity(self, images: Tensor) -> Tensor:
        """Predict disparity (B, 1, H, W) in (0, 1) from images (B, 3, H, W) in [0, 1]."""
        return self.depth(self.encoder(images), scales=[0])["disp", 0]

    def motion(self, earlier: Tensor, later: Tensor) -> Tensor:
        """Predict the (B, 4, 4) pose from the camera of a frame to the camera of the next frame.

        Args:
            earlier: (B, 3, H, W) in [0, 1].
            later: (B, 3, H, W) in [0, 1], the next frame.
        """
        features = {}
        if self.pose_model_type == "shared":
            features = {0: self.encoder(earlier), 1: self.encoder(later)}
        axisangle, translation = self._predict_poses([0, 1], {0: earlier, 1: later}, features)
        return transformation_from_parameters(axisangle[:, 0], translation[:, 0])

    def motions(self, images: dict[int, Tensor]) -> dict[int, Tensor]:
        """Predict the (B, 4, 4) pose from the target camera to the camera of each source frame.

        Args:
            images: {frame: (B, 3, H, W) in [0, 1]} for every frame of training, in the order of
                training; 0 is the target frame.
        """
        features = {}
        if self.pose_model_type == "shared":
            features = {f: self.encoder(image) for f, image in images.items()}
        axisangles, translations = self._predict_poses(list(images), images, features)
        # Faithful: source frame i uses prediction i as it is
        return {f: transformation_from_parameters(axisangles[:, i], translations[:, i])
                for i, f in enumerate(list(images)[1:])}

    def _features(self, inputs: dict) -> dict[int | str, list[Tensor]]:
        """Encode the target frame; with a shared encoder, encode all frames in one batch."""
        frames = self.frames_read if self.pose_model_type == "shared" else [0]
        images = torch.cat([inputs["color_aug", f, 0] for f in frames])
        per_map = [feature.chunk(len(frames)) for feature in self.encoder(images)]
        return dict(zip(frames, (list(maps) for maps in zip(*per_map, strict=True)), strict=True))

    def _poses(self, inputs: dict, features: dict) -> dict[int, tuple[Tensor, Tensor, bool]]:
        """Predict {source frame: (axisangle, translation, whether to invert the pose)}."""
        if self.pose is None:
            return {}
        images = {f: inputs["color_aug", f, 0] for f in self.times}
        if self.pose_model_input == "all":
            # Faithful: frames in the order given; source frame i uses prediction i as it is
            axisangles, translations = self._predict_poses(self.times, images, features)
            return {f: (axisangles[:, i], translations[:, i], False)
                    for i, f in enumerate(self.times[1:])}
        poses = {}
        for f in self.times[1:]:
            # Faithful: in temporal order, a pose to the past inverted, the first prediction
            axisangles, translations = self._predict_poses(sorted([0, f]), images, features)
            poses[f] = axisangles[:, 0], translations[:, 0], f < 0
        return poses

    def _predict_poses(self, frames: list[int], images: dict,
                       features: dict) -> tuple[Tensor, Tensor]:
        """Predict (axisangle, translation), each (B, poses, 1, 3), from frames in this order."""
        if self.pose_model_type == "shared":
            return self.pose([features[f] for f in frames])
        stacked = torch.cat([images[f] for f in frames], 1)
        if self.pose_model_type == "posecnn":
            return self.pose(stacked)
        return self.pose([self.pose_encoder(stacked)])
