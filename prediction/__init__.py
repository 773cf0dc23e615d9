"""From images to disparity, depth, pictures, videos, point clouds and ONNX files."""
