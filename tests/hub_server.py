"""Serve models on this machine as the Hugging Face Hub does: what huggingface_hub asks for."""
from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re

COMMIT = hashlib.sha1(b"tests", usedforsecurity=False).hexdigest()


class HubServer:
    """The models to serve, and the requests so far.

    Attributes:
        models: {user/name: {file name: content}}; an upload adds to it.
        gated: names of models that nobody may read.
        asked: method and path of every request so far.
        cards: every model card that was checked.
        token: that uploads need.
    """

    def __init__(self):
        self.models, self.gated, self.asked, self.cards, self.token = {}, set(), [], [], "hf_tests"

    def handler(self):
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self, status=200, content=b"", **headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def answer_json(self, value):
                self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

            def do_GET(self):
                hub.asked.append(f"{self.command} {self.path}")
                hub.read(self)

            do_HEAD = do_GET

            def do_POST(self):
                hub.asked.append(f"POST {self.path}")
                hub.write(self, self.rfile.read(int(self.headers["Content-Length"])))

            def log_message(self, *_):
                pass

        return Handler

    def read(self, request):
        """Answer a question about a model, or for one of its files."""
        found = re.fullmatch(r"/(?:api/models/)?([\w-]+/[\w.-]+)(?:/(revision|tree|resolve)/(\w+))?"
                             r"(?:/([\w.-]+))?(?:\?.*)?", request.path)
        name, kind, revision, file = found.groups() if found else (None,) * 4
        if name in self.gated:
            return request.answer(403, X_Error_Code="GatedRepo")
        if name not in self.models:
            return request.answer(401, X_Error_Code="RepoNotFound")
        if revision not in (None, "main", COMMIT):
            return request.answer(404, X_Error_Code="RevisionNotFound")
        files = self.models[name]
        if kind == "tree":
            return request.answer_json([{"type": "file", "path": path, "size": len(content),
                                         "oid": etag(content)} for path, content in files.items()])
        if kind == "resolve":
            if file not in files:
                return request.answer(404, X_Error_Code="EntryNotFound")
            return request.answer(200, files[file], ETag=f'"{etag(files[file])}"',
                                  X_Repo_Commit=COMMIT)
        return request.answer_json({
            "id": name, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0,
            "siblings": [{"rfilename": path} for path in files]})

    def write(self, request, body):
        """Answer a step of an upload."""
        if request.headers["Authorization"] != f"Bearer {self.token}":
            return request.answer(401)
        base = f"http://{request.headers['Host']}"
        if request.path == "/api/validate-yaml":
            self.cards.append(json.loads(body)["content"])
            return request.answer_json({"errors": [], "warnings": []})
        if request.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.models.setdefault(name, {})
            return request.answer_json({"url": f"{base}/{name}"})
        name = re.match(r"/api/models/([\w-]+/[\w.-]+)/(?:preupload|commit)/main", request.path)[1]
        if "/preupload/" in request.path:
            return request.answer_json({"files": [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]]})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                value = line["value"]
                self.models[name][value["path"]] = base64.b64decode(value["content"])
        return request.answer_json({"commitUrl": f"{base}/{name}/commit/{COMMIT}",
                                    "commitOid": COMMIT})


def etag(content):
    """Return the name that git gives to a content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
