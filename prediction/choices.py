"""List the values of flags of test_simple.py, which the page and benchmarks offer too."""

COLORMAPS = ("magma", "inferno", "plasma", "viridis", "turbo", "jet")  # of OpenCV
RUNTIMES = ("onnxruntime", "openvino")  # of ONNX files; packages
KINDS = ("disp", "depth", "png", "picture", "video")  # of outputs
