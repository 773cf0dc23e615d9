"""runtime.downloads, against an https server on this machine with a certificate of its own."""
import hashlib
import http.server
import stat
import threading
import zipfile

import pytest
from https_server import Server, archive, serve

from runtime import downloads
from runtime.downloads import download, download_model_if_doesnt_exist, unpack
from runtime.errors import DataError
from runtime.files import LOCK_NAME

NAME = "mono_640x192"
GOOD = {"encoder.pth": "e" * 3000, "depth.pth": "d", "pose.pth": "p"}


@pytest.fixture
def server(server, tmp_path, monkeypatch):
    """Serve models."""
    monkeypatch.setattr(downloads, "MODELS_DIR", tmp_path / "models")
    monkeypatch.setattr(downloads, "MODELS_URL", server.url)
    return server


def listed(folder):
    """Return the names in a folder, without its lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK_NAME)


def offer(server, monkeypatch, content, name=NAME, md5=None):
    server.files[f"/{name.replace('+', '%2B')}.zip"] = content
    md5 = md5 or hashlib.md5(content).hexdigest()
    monkeypatch.setitem(downloads.PRETRAINED_MODELS, name, md5)


def test_a_model_is_downloaded_once_checked_and_unpacked(server, monkeypatch, tmp_path):
    offer(server, monkeypatch, archive(GOOD))
    for _ in range(2):
        folder = download_model_if_doesnt_exist(NAME)
    assert {path.name: path.read_text() for path in folder.iterdir()} == GOOD
    assert listed(tmp_path / "models") == [NAME]
    assert server.asked == [(f"/{NAME}.zip", None)]


def test_a_plus_in_a_model_name_is_quoted_in_its_url(server, monkeypatch):
    offer(server, monkeypatch, archive(GOOD), "mono+stereo_640x192")
    download_model_if_doesnt_exist("mono+stereo_640x192")
    assert server.asked[0][0] == "/mono%2Bstereo_640x192.zip"


def link():
    entry = zipfile.ZipInfo("encoder.pth")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(("content", "md5", "found"), [
    (archive(GOOD), "0" * 32, "its md5 is"),
    (b"no zip", None, "not a zip"),
    (archive({"depth.pth": "d"}), None, "no encoder.pth"),
    (archive({**GOOD, "../evil": "x"}), None, "would leave the folder"),
    (archive({**GOOD, "/tmp/evil": "x"}), None, "would leave the folder"),
    (archive({link(): "/etc/passwd"}), None, "would leave the folder")])
def test_a_bad_archive_is_refused_and_deleted(server, monkeypatch, tmp_path, content, md5, found):
    offer(server, monkeypatch, content, md5=md5)
    with pytest.raises(DataError, match=found):
        download_model_if_doesnt_exist(NAME)
    assert listed(tmp_path / "models") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["authority.pem", "models"]
    assert len(server.asked) == 1


def test_an_encrypted_archive_is_refused(server, monkeypatch, tmp_path):
    content = archive(GOOD)
    flags = content.index(b"PK\x01\x02") + 8
    offer(server, monkeypatch, content[:flags] + b"\x01\x00" + content[flags + 2:])
    with pytest.raises(DataError, match="cannot be unpacked"):
        download_model_if_doesnt_exist(NAME)
    assert listed(tmp_path / "models") == []


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    bomb = tmp_path / "bomb.zip"
    small, size = (number.to_bytes(4, "little") for number in (5000, 10**8))
    content = archive({f"{i}.pth": bytes(5000) for i in range(11)})
    bomb.write_bytes(content.replace(small, size))  # the headers say 1.1 GB in all
    with pytest.raises(DataError, match="1100000000 bytes, more than the 1000000000"):
        unpack(bomb, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_entry_is_never_written_beyond_the_size_in_its_header(tmp_path):
    path = tmp_path / "lie.zip"
    content = archive({"a": "x" * 5000})
    path.write_bytes(content.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(path, tmp_path / "out")
    assert (tmp_path / "out" / "a").stat().st_size <= 50


def test_a_download_that_breaks_off_resumes(server, tmp_path):
    content = bytes(range(256)) * 40
    server.files["/file"], server.cuts = content, [1000, 2000]
    download(f"{server.url}/file", tmp_path / "file", hashlib.md5(content).hexdigest())
    assert (tmp_path / "file").read_bytes() == content
    assert [ranges for _, ranges in server.asked] == [None, "bytes=1000-", "bytes=3000-"]
    assert not (tmp_path / "file.part").exists()


def test_the_next_call_resumes_after_three_failed_tries(server, tmp_path):
    content = bytes(range(256)) * 40
    server.files["/file"], server.cuts = content, [10, 10, 10]
    with pytest.raises(OSError, match="it broke off after 30 of 10240 bytes"):
        download(f"{server.url}/file", tmp_path / "file")
    assert not (tmp_path / "file").exists()
    download(f"{server.url}/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == content
    assert [ranges for _, ranges in server.asked] == [None, "bytes=10-", "bytes=20-", "bytes=30-"]


def test_a_part_of_another_file_is_detected_and_deleted(server, tmp_path):
    server.files["/file"] = b"as it is now"
    md5 = hashlib.md5(b"as it is now").hexdigest()
    (tmp_path / "file.part").write_bytes(b"as it")
    download(f"{server.url}/file", tmp_path / "file", md5)
    (tmp_path / "file.part").write_bytes(b"other")
    with pytest.raises(DataError, match="its md5 is"):
        download(f"{server.url}/file", tmp_path / "file", md5)
    assert not (tmp_path / "file.part").exists()
    (tmp_path / "file.part").write_bytes(b"longer than the whole file")  # answered with 416
    download(f"{server.url}/file", tmp_path / "file", md5)
    assert (tmp_path / "file").read_bytes() == b"as it is now"


def test_a_server_without_ranges_sends_the_whole_file_again(server, tmp_path):
    server.files["/file"], server.cuts, server.is_plain = b"0123456789", [4], True
    download(f"{server.url}/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_5xx_answer_is_retried_and_a_404_is_not(server, tmp_path):
    server.files["/file"], server.statuses = b"here", [503, 500]
    download(f"{server.url}/file", tmp_path / "file")
    assert len(server.asked) == 3
    with pytest.raises(OSError, match="Not Found"):
        download(f"{server.url}/absent", tmp_path / "absent")
    assert len(server.asked) == 4
    assert not (tmp_path / "absent.part").exists()


def test_a_server_that_hangs_times_out(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    hanging = threading.Event()
    server.answer = lambda _: hanging.wait(20)
    with pytest.raises(OSError, match="timed out"):
        download(f"{server.url}/file", tmp_path / "file")
    hanging.set()


@pytest.mark.parametrize("has_length", [True, False])
def test_a_file_that_is_too_large_is_refused(server, tmp_path, monkeypatch, has_length):
    server.files["/file"] = b"x" * 10_000
    if not has_length:
        real = http.server.BaseHTTPRequestHandler.send_header
        monkeypatch.setattr(http.server.BaseHTTPRequestHandler, "send_header", lambda self, *pair: (
            None if pair[0] == "Content-Length" else real(self, *pair)))
    with pytest.raises(DataError, match="more than the 5000"):
        download(f"{server.url}/file", tmp_path / "file", max_bytes=5000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["authority.pem"]


def test_plain_http_is_refused_even_after_a_redirection(server, tmp_path):
    plain = Server()
    plain.files["/file"] = b"x"
    for url in serve(plain):
        with pytest.raises(OSError, match="unknown url type: http"):
            download(f"{url}/file", tmp_path / "file")
        server.location = f"{url}/file"
        with pytest.raises(OSError, match="unknown url type: http"):
            download(f"{server.url}/file", tmp_path / "file")
    assert plain.asked == []


def test_an_untrusted_certificate_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        download(f"{server.url}/file", tmp_path / "file")
    assert server.asked == []


def test_a_failed_download_says_what_to_do(server, tmp_path):
    with pytest.raises(DataError) as caught:
        download_model_if_doesnt_exist(NAME)
    assert "download it by hand and unpack it into" in str(caught.value)
    assert str(tmp_path / "models" / NAME / "encoder.pth") in str(caught.value)


def test_an_unreachable_server_is_named(server, monkeypatch):
    monkeypatch.setattr(downloads, "MODELS_URL", "https://127.0.0.1:9")  # nothing listens there
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9.*refused"):
        download_model_if_doesnt_exist(NAME)


def test_an_unknown_model_is_refused_with_a_list_of_the_models():
    with pytest.raises(DataError, match="'mono' is not a published model; choose one of mono_640"):
        download_model_if_doesnt_exist("mono")
