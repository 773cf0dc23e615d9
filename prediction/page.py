"""Serve a local page that predicts depth: pictures, a wipe, depth under the pointer, a 3-D view."""
from __future__ import annotations

import base64
import html
import os
import signal
import socket
import tempfile
from argparse import Namespace
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from datasets.footage import Footage
from prediction.answers import MAX_SECONDS, Colours, PageAnswers
from prediction.choices import COLORMAPS
from prediction.predictor import Predictor
from runtime.distributed import get_device
from runtime.downloads import download_model_if_doesnt_exist
from runtime.errors import DataError, UsageError
from runtime.packages import require_packages

FILES = {"depth": "Depth as .npy", "png": "Depth x 256 as 16-bit .png",
         "ply": "Point cloud as .ply"}
EXAMPLES = 6
MAX_UPLOAD = "500mb"
KEPT = 3600  # seconds that the files of a visitor are kept
ONE_AT_A_TIME = {"concurrency_id": "network", "concurrency_limit": 1}
TITLE = "Depth from a single image"
STYLE = """
.picture img { object-fit: contain }
.picture .image-frame img, .picture .image-container img { width: 100%; height: 100% }
[aria-label="Trim video to selection"] { display: none }  /* needs ffmpeg of another server */
.depth p { margin: 0 }
.depth output { position: fixed; z-index: 100; padding: 2px 8px; border-radius: 4px;
                background: #000c; color: #fff; pointer-events: none; font-weight: 600 }
.depth output:empty { display: none }
"""
READING = "<p>${value.words || ''}</p><output></output>"
# Depth under the pointer: inverse depth at the network's size, interpolated as for the files
READ_DEPTH = """
let value = null, inverse = null;
const depthAt = (x, y) => {  // shares of the picture's width and height
  if (value !== props.value) {
    value = props.value;
    const bytes = Uint8Array.from(atob(value.inverse_depth), each => each.charCodeAt(0));
    inverse = new Float32Array(bytes.buffer);
  }
  const [h, w] = value.shape;
  const between = (share, size) => {
    const at = Math.min(Math.max(share * size - 0.5, 0), size - 1), low = Math.floor(at);
    return [low, Math.min(low + 1, size - 1), at - low];
  };
  const [top, bottom, down] = between(y, h), [left, right, along] = between(x, w);
  const row = at => inverse[at * w + left] * (1 - along) + inverse[at * w + right] * along;
  return 1 / (row(top) * (1 - down) + row(bottom) * down);
};
document.addEventListener('pointermove', event => {
  const label = element.querySelector('output');
  const picture = event.target.closest?.('.picture')?.querySelector('img');
  label.textContent = '';
  if (!picture || !props.value?.shape) return;
  const box = picture.getBoundingClientRect();
  const scale = Math.min(box.width / picture.naturalWidth, box.height / picture.naturalHeight);
  const share = (at, middle, size) => (at - middle) / (size * scale) + 0.5;
  const x = share(event.clientX, box.left + box.width / 2, picture.naturalWidth);
  const y = share(event.clientY, box.top + box.height / 2, picture.naturalHeight);
  if (Math.min(x, y) < 0 || Math.max(x, y) >= 1) return;
  label.textContent = `${+depthAt(x, y).toPrecision(3)} ${props.value.unit}`;
  label.style.left = `${event.clientX + 14}px`;
  label.style.top = `${event.clientY + 14}px`;
});
"""
# The page works offline, and no part of gradio may ask another server for anything
OFFLINE = """<meta http-equiv="Content-Security-Policy" content="default-src 'self' data: blob:
'unsafe-inline' 'unsafe-eval'">"""
SAVE = "() => document.querySelector('#download')?.click()"


def serve_page(args: Namespace) -> None:
    """Serve the page until Ctrl-C or SIGTERM, and delete all files of its visitors.

    Args:
        args: the flags of app.py.

    Raises:
        DataError: a package is missing, or the weights or the examples are broken.
        UsageError: the address cannot be listened on.
    """
    require_packages(["gradio", "trimesh"], "-r requirements-app.txt")
    try:
        socket.create_server((args.host, args.port or 0)).close()
    except (OSError, OverflowError):
        raise UsageError(f"{args.host} with port {args.port or 'any'} cannot be listened on: it is "
                         "taken, or no address of this machine; choose another --port or "
                         "--host") from None
    weights = args.load_weights_folder or download_model_if_doesnt_exist(args.model_name)
    predictor = Predictor(weights, get_device(args.no_cuda))
    examples = find_examples(args.examples) if args.examples else []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="depth_page_") as folder:
        # gradio asks its own server whether it runs, which a proxy could not answer
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=folder, no_proxy="*")
        page = build_page(PageAnswers(predictor, folder), examples)
        _, url, _ = page.launch(
            server_name=args.host, server_port=args.port, share=False, ssr_mode=False, quiet=True,
            prevent_thread_lock=True, max_file_size=MAX_UPLOAD, footer_links=[], css=STYLE,
            head=OFFLINE)
        print(f"{url} (Ctrl-C stops it); depth is {predictor.training_camera.unit().words}",
              flush=True)
        page.block_thread()


def find_examples(source: str) -> list[str]:
    """Return a few images of a folder, evenly spaced.

    Raises:
        DataError: the folder is missing or has no image, or the source is a video.
    """
    footage = Footage(source)
    if footage.is_video:
        raise DataError(f"--examples {source} is a video; give an image, or a folder of images")
    images = [still.label for still in footage]
    return images[::-(-len(images) // EXAMPLES)]


def build_page(answers: PageAnswers, examples: list[str]) -> object:
    """Lay out the page, and connect its controls with the answers; return the `gradio.Blocks`.

    Args:
        answers: of the weights.
        examples: paths of images; the first one is predicted when the page opens.
    """
    import gradio as gr
    with gr.Blocks(title=TITLE, delete_cache=(60, KEPT), analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}\nDepth is {html.escape(answers.unit.words)}.")
        with gr.Row():
            colormap = gr.Dropdown(COLORMAPS, value=COLORMAPS[0], label="Colour map")
            near, far, view = (gr.Number(0, label=f"{words} (0: automatic)", minimum=0)
                               for words in (f"Nearest colour, {answers.unit_name}",
                                             f"Farthest colour, {answers.unit_name}",
                                             "Field of view, degrees"))
        colours = [colormap, near, far]
        with gr.Tab("Image"):
            add_image_tab(answers, colours, view, examples, page)
        with gr.Tab("Video"):
            add_video_tab(answers, colours)
    return page


def add_image_tab(answers: PageAnswers, colours: list, view: object, examples: list[str],
                  page: object) -> None:
    """Add pictures, a wipe, a surface and files of one image."""
    import gradio as gr
    with gr.Row():
        image = gr.Image(examples[0] if examples else None, type="filepath", label="Image",
                         sources=["upload", "webcam", "clipboard"], elem_classes="picture",
                         webcam_options=gr.WebcamOptions(mirror=False), height=300)
        disp = gr.Image(label="Disparity: bright is near", format="png", interactive=False,
                        elem_classes="picture", height=300, buttons=["download", "fullscreen"])
    # the file as it was uploaded: gradio would decode it first, with errors of its own
    image.preprocess = lambda payload: payload and payload.path
    reading = gr.HTML({}, html_template=READING, js_on_load=READ_DEPTH, elem_classes="depth")
    if examples:
        gr.Examples([[each] for each in examples], image, label="Try one of these")
    with gr.Row():
        wipe = gr.ImageSlider(label="Wipe between image and disparity", format="png",
                              interactive=False, elem_classes="picture", height=320)
        model = gr.Model3D(label="Turn it with the pointer", height=320)
    with gr.Row():
        buttons = {kind: gr.Button(words) for kind, words in FILES.items()}
    download = gr.DownloadButton(elem_id="download", visible="hidden")

    def show_pictures(path: str, *choice: object) -> tuple:
        shown = answers.pictures(path, Colours(*choice))
        data = base64.b64encode(shown.inverse_depth.tobytes()).decode()
        return shown.disp, (shown.image, shown.disp), {
            "words": html.escape(shown.words), "unit": answers.unit_name, "inverse_depth": data,
            "shape": shown.inverse_depth.shape}

    def show_surface(path: str, degrees: float | None) -> object:
        file, distance, words = answers.surface(path, degrees)
        if words:
            gr.Info(words)
        return gr.Model3D(file, camera_position=(90, 72, 1.25 * distance))

    colormap, *limits = colours
    pictures = {"fn": in_a_sentence(show_pictures, (None, None, {})),
                "inputs": [image, *colours], "outputs": [disp, wipe, reading], **ONE_AT_A_TIME}
    surface = {"fn": in_a_sentence(show_surface, gr.update(value=None)),
               "inputs": [image, view], "outputs": model, **ONE_AT_A_TIME}
    # one after the other: a broken file gets one sentence, and new colours leave the view as it is
    gr.on([image.change, page.load], **pictures, api_name="pictures").success(
        **surface, api_name="surface")
    edited = [each for number in limits for each in (number.submit, number.blur)]
    gr.on([colormap.change, *edited], **pictures, api_visibility="private")
    gr.on([view.submit, view.blur], **surface, api_visibility="private")
    for kind, button in buttons.items():
        button.click(in_a_sentence(lambda path, view, kind=kind: answers.file(path, kind, view)),
                     [image, view], download, api_name=kind, **ONE_AT_A_TIME).then(None, js=SAVE)


def add_video_tab(answers: PageAnswers, colours: list) -> None:
    """Add a video, and the video of its disparities."""
    import gradio as gr
    progress = gr.Progress(track_tqdm=True)
    with gr.Row():
        video = gr.Video(label=f"Video of {MAX_SECONDS} seconds at most", sources=["upload"],
                         height=400)
        predicted = gr.Video(label="Video beside disparity", interactive=False, height=400,
                             buttons=["download"])

    def show_video(path: str, *choice: object, progress=progress) -> str:
        return answers.video(path, Colours(*choice))

    gr.Button("Predict", variant="primary").click(
        in_a_sentence(show_video), [video, *colours], predicted, api_name="video",
        **ONE_AT_A_TIME)


def in_a_sentence(answer: Callable, cleared: object = None) -> Callable:
    """Show a DataError of an answer on the page, with the file's name instead of its path.

    Args:
        answer: takes the path of a file, and more.
        cleared: the answer where the page has no file; None: a sentence that asks for one.
    """
    import gradio as gr

    @wraps(answer)
    def call(path: str | None, *values: object, **options: object) -> object:
        if path is None and cleared is None:
            raise gr.Error("Choose a file first.", print_exception=False)
        if path is None:
            return cleared
        try:
            return answer(path, *values, **options)
        except DataError as error:
            words = html.escape(str(error).replace(path, Path(path).name))
            raise gr.Error(words, duration=None, print_exception=False) from None
    return call
