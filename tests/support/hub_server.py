"""A local stand-in of the Hugging Face hub, for the real hub client: downloads, uploads and their refusals.

It answers the requests that ``huggingface_hub`` sends to list, download, create and fill model repositories, with the
headers and error codes of the hub. Weights are served from signed addresses under ``/cdn``, as on the hub. The client
reads ``HF_ENDPOINT`` when it is imported, so that :meth:`HubServer.environment` is for new processes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from support.hostile_server import Server

SIGNATURE = "X-Amz-Signature=5ec3e7"
"""Query of the signed addresses, which no output may show."""

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Request(NamedTuple):
    method: str
    path: str
    authorization: str | None


@dataclass
class Repository:
    """A model repository: its files, and who may read it."""

    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    @classmethod
    def of(cls, folder: Path, **more: bool) -> Repository:
        return cls({file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}, **more)


@dataclass
class HubServer:
    """The hub: repositories by id, and accounts by token, in the form of the answer of ``whoami-v2``.

    Attributes:
        broken: transfers of weights that end in the middle; with ``broken=99`` all do.
        refused: steps of an upload that are refused: ``create``, ``preupload``, ``lfs``, ``storage`` or
            ``commit``.
    """

    port: int = 0
    repositories: dict[str, Repository] = field(default_factory=dict)
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    broken: int = 0
    refused: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def other_host(self) -> str:
        """The same server under another name, as the host of signed addresses."""
        return f"http://localhost:{self.port}"

    def environment(self, cache: Path, token: str = "", **more: str) -> dict[str, str]:
        """Return the environment of a process that uses this hub, an own cache, and no token but the given one."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(cache),
            "HF_HUB_CACHE": str(cache / "hub"),
            "HF_TOKEN": token,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            **more,
        }

    def paths(self, method: str = "") -> list[str]:
        return [request.path for request in self.requests if method in ("", request.method)]


def account(name: str, *organisations: str, role: str = "write") -> dict[str, Any]:
    return {
        "type": "user",
        "name": name,
        "orgs": [{"name": organisation, "roleInOrg": "write"} for organisation in organisations],
        "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": role}},
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    home: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.home.requests.append(Request(self.command, self.path, self.headers.get("Authorization")))
        body = self.read_body()
        path = unquote(urlsplit(self.path).path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if path.startswith("/cdn/"):
            self.send_signed(path)
        elif path.startswith("/lfs/") and "storage" in self.home.refused:
            self.send(403, b"Request has expired")
        elif path.startswith("/lfs/"):
            self.home.stored[path.removeprefix("/lfs/")] = body
            self.send(200)
        elif token and token not in self.home.accounts:
            self.refuse(401, "", "Invalid credentials in Authorization header")
        elif path == "/api/whoami-v2":
            self.send_json(self.home.accounts[token])
        elif path == "/api/validate-yaml":
            self.send_json({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        else:
            self.answer_about_repository(path, body, token)

    do_HEAD = do_POST = do_PUT = do_GET

    def answer_about_repository(self, path: str, body: bytes, token: str) -> None:
        parts = path.removeprefix("/api/models").strip("/").split("/")
        name, rest = "/".join(parts[:2]).removesuffix(".git"), parts[2:]
        repository = self.home.repositories.get(name)
        if repository is None or (repository.private and not token):
            self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif not rest or rest[0] == "revision":
            self.send_json({"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in repository.files]})
        elif rest[0] == "tree":
            self.send_json([_entry(file, content) for file, content in repository.files.items()])
        elif rest[0] == "resolve":
            self.resolve(name, repository, rest[-1], token)
        elif rest[0] == "preupload":
            self.preupload(json.loads(body))
        elif rest[0] == "info":
            self.negotiate(json.loads(body))
        elif rest[0] == "commit":
            self.commit(name, repository, body)
        else:
            self.send(400)

    def resolve(self, name: str, repository: Repository, file: str, token: str) -> None:
        if repository.gated:
            self.refuse(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted")
            return
        if file not in repository.files:
            self.refuse(404, "EntryNotFound", "Entry not found")
            return
        content, commit = repository.files[file], {"X-Repo-Commit": COMMIT}
        if file.endswith(".safetensors"):
            digest = hashlib.sha256(content).hexdigest()
            self.home.stored[digest] = content
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            self.send(302, **commit, **linked, Location=f"{self.home.other_host}/cdn/{digest}?{SIGNATURE}")
        else:
            self.send(200, content, **commit, ETag=f'"{hashlib.sha1(content).hexdigest()}"')

    def send_signed(self, path: str) -> None:
        content = self.home.stored[path.removeprefix("/cdn/")]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        rest = content[start:]
        if self.command == "GET" and self.home.broken:
            self.home.broken -= 1
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.close_connection = True
            return
        ranged = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        self.send(206 if start else 200, rest, **ranged)

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if "create" in self.home.refused:
            self.refuse(403, "", "You don't have the rights to create a model under this namespace")
        elif name in self.home.repositories:
            self.refuse(409, "", "You already created this model repo")
        else:
            private = wanted.get("visibility") == "private" or wanted.get("private") is True
            self.home.repositories[name] = Repository(private=private)
            self.send_json({"url": f"{self.home.url}/{name}"})

    def preupload(self, wanted: dict[str, Any]) -> None:
        if "preupload" in self.home.refused:
            self.refuse(403, "", "You have read access but not the required permissions for this operation")
            return
        modes = {True: "lfs", False: "regular"}
        files = [
            {"path": file["path"], "uploadMode": modes[file["path"].endswith(".safetensors")], "shouldIgnore": False}
            for file in wanted["files"]
        ]
        self.send_json({"files": files})

    def negotiate(self, wanted: dict[str, Any]) -> None:
        if "lfs" in self.home.refused:
            self.refuse(403, "", "Storage quota exceeded")
            return
        objects = [
            {**object_, "actions": {"upload": {"href": f"{self.home.url}/lfs/{object_['oid']}?{SIGNATURE}"}}}
            for object_ in wanted["objects"]
        ]
        self.send_json({"transfer": "basic", "objects": objects}, content_type="application/vnd.git-lfs+json")

    def commit(self, name: str, repository: Repository, body: bytes) -> None:
        if "commit" in self.home.refused:
            self.refuse(403, "", "Authorization error: the branch is protected")
            return
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                repository.files[value["path"]] = self.home.stored[value["oid"]]
        self.send_json({"success": True, "commitOid": COMMIT, "commitUrl": f"{self.home.url}/{name}/commit/{COMMIT}"})

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, value: object, content_type: str = "application/json") -> None:
        self.send(200, json.dumps(value).encode(), **{"Content-Type": content_type})

    def refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.send(status, json.dumps({"error": message}).encode(), **{"Content-Type": "application/json"}, **headers)


def _entry(file: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "file",
        "path": file,
        "size": len(content),
        "oid": hashlib.sha1(content).hexdigest(),
    }
    if file.endswith(".safetensors"):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


@contextmanager
def serve_hub() -> Iterator[HubServer]:
    home = HubServer()
    server = Server(("127.0.0.1", 0), type("HubHandler", (Handler,), {"home": home}))
    home.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield home
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
