"""downloads.py: from a real https server on loopback, whose authority the tests bring along."""
import hashlib
import http.server
import stat
import threading
import zipfile

import pytest
from https_server import Server, archive, serve

from runtime import downloads
from runtime.downloads import Checksum, Refused, download, download_model_if_doesnt_exist, unpack
from runtime.errors import DataError

NAME = "mono_640x192"
GOOD = {"encoder.pth": "e" * 3000, "depth.pth": "d", "pose.pth": "p"}


@pytest.fixture
def server(server, tmp_path, monkeypatch):
    """Serve models."""
    monkeypatch.setattr(downloads, "MODELS_DIR", tmp_path / "models")
    monkeypatch.setattr(downloads, "MODELS_URL", server.url)
    return server


def offer(server, monkeypatch, content, name=NAME, md5=None):
    server.files[f"/{name.replace('+', '%2B')}.zip"] = content
    md5 = md5 or hashlib.md5(content).hexdigest()
    monkeypatch.setitem(downloads.PRETRAINED_MODELS, name, md5)


def test_a_model_is_downloaded_once_checked_and_unpacked(server, monkeypatch, tmp_path):
    offer(server, monkeypatch, archive(GOOD))
    for _ in range(2):
        folder = download_model_if_doesnt_exist(NAME)
    assert {path.name: path.read_text() for path in folder.iterdir()} == GOOD
    assert [path.name for path in (tmp_path / "models").iterdir()] == [NAME]
    assert server.asked == [(f"/{NAME}.zip", None)]


def test_a_plus_in_a_name_is_quoted(server, monkeypatch):
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
def test_a_bad_archive_is_refused_and_nothing_is_left(server, monkeypatch, tmp_path, content, md5,
                                                      found):
    offer(server, monkeypatch, content, md5=md5)
    with pytest.raises(DataError, match=found):
        download_model_if_doesnt_exist(NAME)
    assert list((tmp_path / "models").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["authority.pem", "models"]
    assert len(server.asked) == 1


def test_an_encrypted_archive_is_refused(server, monkeypatch, tmp_path):
    content = archive(GOOD)
    flags = content.index(b"PK\x01\x02") + 8
    offer(server, monkeypatch, content[:flags] + b"\x01\x00" + content[flags + 2:])
    with pytest.raises(DataError, match="cannot be unpacked"):
        download_model_if_doesnt_exist(NAME)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as content:
        for i in range(11):
            content.writestr(f"{i}.pth", bytes(10**8))  # 1.1 GB in all
    assert bomb.stat().st_size < 2 * 10**6
    with pytest.raises(Refused, match="1100000000 bytes, more than the 1000000000"):
        unpack(bomb, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_entry_larger_than_it_says_is_not_written_beyond_that(tmp_path):
    path = tmp_path / "lie.zip"
    content = archive({"a": "x" * 5000})
    path.write_bytes(content.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    with pytest.raises(Refused, match="cannot be unpacked"):
        unpack(path, tmp_path / "out")
    assert (tmp_path / "out" / "a").stat().st_size <= 50


def test_a_download_that_breaks_off_goes_on_where_it_was(server, tmp_path):
    content = bytes(range(256)) * 40
    server.files["/file"], server.cuts = content, [1000, 2000]
    checksum = Checksum("sha256", hashlib.sha256(content).hexdigest()[:8])
    download(f"{server.url}/file", tmp_path / "file", checksum)
    assert (tmp_path / "file").read_bytes() == content
    assert [ranges for _, ranges in server.asked] == [None, "bytes=1000-", "bytes=3000-"]
    assert not (tmp_path / "file.part").exists()


def test_after_three_tries_what_has_come_is_kept_for_the_next_call_but_not_taken_for_whole(
        server, tmp_path):
    content = bytes(range(256)) * 40
    server.files["/file"], server.cuts = content, [10, 10, 10]
    with pytest.raises(OSError, match="it broke off after 30 of 10240 bytes"):
        download(f"{server.url}/file", tmp_path / "file", None)
    assert not (tmp_path / "file").exists()
    download(f"{server.url}/file", tmp_path / "file", None)
    assert (tmp_path / "file").read_bytes() == content
    assert [ranges for _, ranges in server.asked] == [None, "bytes=10-", "bytes=20-", "bytes=30-"]


def test_a_part_of_another_file_is_found_out_and_dropped(server, tmp_path):
    server.files["/file"] = b"as it is now"
    checksum = Checksum("md5", hashlib.md5(b"as it is now").hexdigest())
    (tmp_path / "file.part").write_bytes(b"as it")
    download(f"{server.url}/file", tmp_path / "file", checksum)
    (tmp_path / "file.part").write_bytes(b"other")
    with pytest.raises(Refused, match="its md5 is"):
        download(f"{server.url}/file", tmp_path / "file", checksum)
    assert not (tmp_path / "file.part").exists()
    (tmp_path / "file.part").write_bytes(b"longer than the whole file")  # answered with 416
    download(f"{server.url}/file", tmp_path / "file", checksum)
    assert (tmp_path / "file").read_bytes() == b"as it is now"


def test_a_server_without_ranges_sends_all_once_more(server, tmp_path):
    server.files["/file"], server.cuts, server.is_plain = b"0123456789", [4], True
    download(f"{server.url}/file", tmp_path / "file", None)
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_server_that_stumbles_is_asked_again_and_one_that_says_no_is_not(server, tmp_path):
    server.files["/file"], server.statuses = b"here", [503, 500]
    download(f"{server.url}/file", tmp_path / "file", None)
    assert len(server.asked) == 3
    with pytest.raises(OSError, match="Not Found"):
        download(f"{server.url}/nothing", tmp_path / "nothing", None)
    assert len(server.asked) == 4
    assert not (tmp_path / "nothing.part").exists()


def test_a_server_that_hangs_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    hanging = threading.Event()
    server.answer = lambda _: hanging.wait(20)
    with pytest.raises(OSError, match="timed out"):
        download(f"{server.url}/file", tmp_path / "file", None)
    hanging.set()


@pytest.mark.parametrize("has_length", [True, False])
def test_a_file_that_is_too_large_is_refused(server, tmp_path, monkeypatch, has_length):
    server.files["/file"] = b"x" * 10_000
    if not has_length:
        real = http.server.BaseHTTPRequestHandler.send_header
        monkeypatch.setattr(http.server.BaseHTTPRequestHandler, "send_header", lambda self, *pair: (
            None if pair[0] == "Content-Length" else real(self, *pair)))
    with pytest.raises(Refused, match="more than the 5000"):
        download(f"{server.url}/file", tmp_path / "file", None, max_bytes=5000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["authority.pem"]


def test_plain_http_is_refused_also_after_a_redirection(server, tmp_path):
    plain = Server()
    plain.files["/file"] = b"x"
    for url in serve(plain):
        with pytest.raises(OSError, match="unknown url type: http"):
            download(f"{url}/file", tmp_path / "file", None)
        server.location = f"{url}/file"
        with pytest.raises(OSError, match="unknown url type: http"):
            download(f"{server.url}/file", tmp_path / "file", None)
    assert plain.asked == []


def test_a_certificate_that_nobody_vouches_for_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        download(f"{server.url}/file", tmp_path / "file", None)
    assert server.asked == []


def test_a_failed_download_says_what_to_do(server, tmp_path):
    with pytest.raises(DataError) as caught:
        download_model_if_doesnt_exist(NAME)
    assert "download it by hand and unpack it into" in str(caught.value)
    assert str(tmp_path / "models" / NAME / "encoder.pth") in str(caught.value)


def test_a_server_that_does_not_answer_is_named(server, monkeypatch):
    monkeypatch.setattr(downloads, "MODELS_URL", "https://127.0.0.1:9")  # nothing listens there
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9.*refused"):
        download_model_if_doesnt_exist(NAME)


def test_an_unknown_model_is_refused_with_the_names():
    with pytest.raises(DataError, match="'mono' is not a published model; choose one of mono_640"):
        download_model_if_doesnt_exist("mono")
