"""The Hub client's failures, worded and typed, and its tokens kept where they belong."""

import httpx
import pytest
import requests
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from eisv_lumen.errors import ConfigurationError, HubError
from eisv_lumen.hub_client import (
    HubConflictError,
    HubNotFoundError,
    HubUnreachableError,
    client,
    hub_errors,
    read_token,
)

URL = "http://127.0.0.1:9"


def translated(error: Exception) -> HubError:
    with pytest.raises(HubError) as caught, hub_errors("do something", URL):
        raise error
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert "do something" in str(caught.value)
    return caught.value


def answer(status: int) -> HfHubHTTPError:
    response = requests.Response()
    response.status_code = status
    return HfHubHTTPError("words of the client", response=response)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, HubError),
        (403, HubError),
        (404, HubNotFoundError),
        (409, HubConflictError),
        (412, HubConflictError),
        (418, HubError),
        (429, HubUnreachableError),
        (500, HubUnreachableError),
        (503, HubUnreachableError),
    ],
)
def test_statuses(status, kind):
    error = translated(answer(status))
    assert type(error) is kind and str(status) in error.found


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectionError("refused"),
        requests.Timeout("slow"),
        requests.exceptions.ChunkedEncodingError("cut off"),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        ConnectionResetError(),
        TimeoutError(),
        LocalEntryNotFoundError("nothing cached"),
        type("ConnectError", (Exception,), {"__module__": "httpx2"})("refused"),
    ],
)
def test_no_answer(error):
    assert type(translated(error)) is HubUnreachableError


def test_the_cause_of_a_failed_download_decides():
    try:
        raise LocalEntryNotFoundError("cannot download") from answer(401)
    except LocalEntryNotFoundError as error:
        assert "refused the token" in translated(error).found


def test_a_missing_file_is_not_found():
    error = EntryNotFoundError("no such file", response=answer(404).response)
    assert type(translated(error)) is HubNotFoundError


def test_a_truncated_download_is_named():
    assert "truncated" in translated(OSError("Consistency check failed: file should be of size 5")).found


def test_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), hub_errors("do something", URL):
        raise ZeroDivisionError
    with pytest.raises(PermissionError), hub_errors("do something", URL):
        raise PermissionError("the disk, not the Hub")


def test_without_a_token_none_is_sent(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_another_hub")
    assert client(URL).token is False
    assert client(URL + "/", "hf_mine").endpoint == URL
    with pytest.raises(ConfigurationError):
        client("127.0.0.1:9")


def test_tokens_come_from_a_file_or_the_environment(tmp_path, monkeypatch):
    assert read_token() is None
    monkeypatch.setenv("HF_TOKEN", " hf_env\n")
    assert read_token() == "hf_env"
    (tmp_path / "token").write_text("hf_file\n")
    assert read_token(tmp_path / "token") == "hf_file"


@pytest.mark.parametrize("content", [b"", b"two words", b"line\nline", b"\xff\xfe", "hf_ü".encode()])
def test_unusable_tokens_are_refused_without_showing_them(tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(ConfigurationError) as refused:
        read_token(tmp_path / "token")
    assert "hf_" not in str(refused.value) and "words" not in str(refused.value)
    with pytest.raises(ConfigurationError):
        read_token(tmp_path / "absent")


def test_without_a_token_what_is_hidden_is_not_there():
    response = requests.Response()
    response.status_code = 401
    assert (
        type(translated(RepositoryNotFoundError("no such repository", response=response))) is HubNotFoundError
    )
    assert type(translated(GatedRepoError("ask for access", response=response))) is HubError


def of_upload(cause: Exception) -> RuntimeError:
    error = RuntimeError("Error while uploading 'model.safetensors' to the Hub.")
    error.__cause__ = cause
    return error


def test_a_large_file_whose_bytes_were_refused_is_worth_another_attempt():
    assert type(translated(of_upload(answer(400)))) is HubUnreachableError
    assert "(503)" in translated(of_upload(answer(503))).found
    assert type(translated(of_upload(answer(403)))) is HubError, (
        "a token without the right gains none by waiting"
    )
