"""An S3 server with as much of the protocol as reading needs: ListObjectsV2, HeadObject and GetObject of a folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_DATE = "2026-01-02T03:04:05.000Z"
_HTTP_DATE = "Fri, 02 Jan 2026 03:04:05 GMT"
PRIVATE = "private"


class _Handler(BaseHTTPRequestHandler):
    """Buckets are the folders below `root`. Nobody may read the bucket `private`."""

    root: Path
    requests: list[str]

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        bucket, _, key = unquote(address.path).lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        self.requests.append(key or query.get("prefix", ""))
        if bucket == PRIVATE:
            self._answer(403, _error("AccessDenied"))
        elif not (self.root / bucket).is_dir():
            self._answer(404, _error("NoSuchBucket"))
        elif "list-type" in query:
            self._answer(200, self._listing(bucket, query.get("prefix", ""), query.get("delimiter", "")))
        elif (self.root / bucket / key).is_file():
            self._answer(200, (self.root / bucket / key).read_bytes(), "binary/octet-stream")
        else:
            self._answer(404, _error("NoSuchKey"))

    do_HEAD = do_GET  # noqa: N815 - as http.server names it

    def _listing(self, bucket: str, prefix: str, delimiter: str) -> bytes:
        keys = sorted(path for path in (self.root / bucket).rglob("*") if path.is_file())
        contents, folders = [], dict[str, None]()
        for path in keys:
            key = path.relative_to(self.root / bucket).as_posix()
            inner, found, _ = key.removeprefix(prefix).partition(delimiter) if delimiter else (key, "", "")
            if not key.startswith(prefix):
                continue
            if found:
                folders[prefix + inner + delimiter] = None
                continue
            contents.append(
                f"<Contents><Key>{escape(key)}</Key><LastModified>{_DATE}</LastModified><ETag>&quot;0&quot;</ETag>"
                f"<Size>{path.stat().st_size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
        inside = "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        head = f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><IsTruncated>false</IsTruncated>"
        count = f"<KeyCount>{len(contents) + len(folders)}</KeyCount><MaxKeys>1000</MaxKeys>"
        return _document(f"<ListBucketResult>{head}{count}{''.join(contents)}{inside}</ListBucketResult>")

    def _answer(self, status: int, body: bytes, kind: str = "application/xml") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"0"')
        self.send_header("Last-Modified", _HTTP_DATE)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def _document(text: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()


def _error(code: str) -> bytes:
    return _document(f"<Error><Code>{code}</Code><Message>{code}</Message></Error>")


@contextmanager
def s3_server(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve the folders below `root` as buckets; yields the endpoint and a list of the keys that were requested."""
    requests: list[str] = []
    handler = type("Handler", (_Handler,), {"root": root, "requests": requests, "protocol_version": "HTTP/1.1"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
