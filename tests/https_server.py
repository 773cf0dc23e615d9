"""Serve files over https on this machine, with a certificate authority made for the tests."""
from __future__ import annotations

import http.server
import io
import re
import ssl
import threading
import zipfile


class Server:
    """The files to serve, the requests so far, and how the next requests fail.

    Attributes:
        files: {path: content}.
        asked: (path, Range header) of every GET request so far.
        sized: path of every HEAD request so far.
        cuts: numbers of bytes after which the next answers break off.
        statuses: status codes of the next answers.
        location: URL that every GET request is redirected to.
        is_plain: ignore the Range header, as the simplest servers do.
    """

    def __init__(self):
        self.files, self.asked, self.sized, self.cuts, self.statuses = {}, [], [], [], []
        self.location, self.is_plain = None, False

    def handler(self):
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def do_HEAD(self):
                server.answer_size(self)

            def log_message(self, *_):
                pass

        return Handler

    def answer_size(self, request):
        self.sized.append(request.path)
        content = self.files.get(request.path)
        request.send_response(404 if content is None else 200)
        request.send_header("Content-Length", str(len(content or b"")))
        request.end_headers()

    def answer(self, request):
        asked = request.headers.get("Range")
        self.asked.append((request.path, asked))
        if self.location:
            request.send_response(302)
            request.send_header("Location", self.location)
            request.end_headers()
            return
        status = self.statuses.pop(0) if self.statuses else 200
        content = self.files.get(request.path)
        start = int(re.search(r"\d+", asked)[0]) if asked and not self.is_plain else 0
        if status != 200 or content is None or (start and start >= len(content)):
            request.send_error(status if status != 200 else 404 if content is None else 416)
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        end = start + self.cuts.pop(0) if self.cuts else len(content)
        request.wfile.write(content[start:end])


def serve(server, authority=None):
    """Serve until the generator is closed; yield the base of the URLs."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), server.handler()) as httpd:
        if authority:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(context)
            httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield f"{'https' if authority else 'http'}://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def archive(entries):
    """Zip {name or ZipInfo: content}; return the bytes of the zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as content:
        for name, text in entries.items():
            content.writestr(name, text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
