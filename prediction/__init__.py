"""Predict disparity and depth from images, and write pictures, videos, point clouds and ONNX."""
