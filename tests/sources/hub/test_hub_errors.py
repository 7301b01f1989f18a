"""What goes wrong between here and the Hub is told apart, each with its way out, and never shows the token."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest

from llama_runner.core.errors import DownloadError, ExitCode, Interrupted, LlamaRunnerError, SourceError
from llama_runner.sources.hub import error_mapping, errors
from llama_runner.sources.hub.client import HubClient
from llama_runner.sources.hub.endpoint_and_token import Access
from llama_runner.sources.hub.errors import HubError, HubUnavailable
from tests.sources.hub.answering import Answer, answer, answering, half, hang_up, silent
from tests.sources.hub.asking import COMMIT, REPO, TOKEN, asked


def refused(status: int, *, token: str | None = TOKEN, body: object = b"", **headers: str) -> LlamaRunnerError:
    with answering(answer(status, body, **headers)) as hub:
        return asked(hub.url, token)


# --- answers ---


def test_pain_09_without_a_token_what_does_not_exist_may_be_private() -> None:
    for status, headers in (
        (401, {}),
        (401, {"X_Error_Code": "RepoNotFound"}),
        (404, {"X_Error_Code": "RepoNotFound"}),
    ):
        error = refused(status, token=None, **headers)
        assert isinstance(error, errors.NoSuchRepository)
        assert "acme/tiny does not exist on http://127.0.0.1:" in str(error)
        assert str(error).endswith(", or is private")
        assert "set HF_TOKEN" in str(error.hint)


def test_pain_09_a_repository_that_does_not_exist() -> None:
    error = refused(404, X_Error_Code="RepoNotFound")
    assert isinstance(error, errors.NoSuchRepository)
    assert error.hint == "check the name; if it is private, the token from HF_TOKEN must be allowed to see it"
    assert error.code == ExitCode.SOURCE


@pytest.mark.parametrize("headers", [{}, {"X_Error_Message": "Invalid credentials in Authorization header"}])
def test_pain_09_a_token_that_is_not_accepted(headers: dict[str, str]) -> None:
    error = refused(401, **headers)
    assert isinstance(error, HubError)
    assert str(error).endswith("refuses the token from HF_TOKEN: it is invalid or expired")
    assert "/settings/tokens" in str(error.hint)


def test_pain_09_a_licence_that_is_not_accepted_yet_with_the_page_to_accept_it() -> None:
    with answering(answer(403, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")) as hub:
        error = asked(hub.url)
        assert isinstance(error, HubError)
        assert str(error) == "acme/tiny is gated, and the owner of the token from HF_TOKEN has no access yet"
        assert f"accept its terms at {hub.url}/acme/tiny;" in str(error.hint)


def test_pain_09_a_licence_to_accept_and_nobody_logged_in() -> None:
    for status in (401, 403):
        error = refused(status, token=None, X_Error_Code="GatedRepo")
        assert isinstance(error, HubError)
        assert str(error) == "acme/tiny is gated, and no token is set"
        assert "then set HF_TOKEN or log in" in str(error.hint)


def test_a_token_without_the_permission() -> None:
    error = refused(403, X_Error_Message="the token lacks repo.content.read")
    assert isinstance(error, HubError)
    assert str(error).endswith("denies access to acme/tiny: the token lacks repo.content.read")
    assert "the token from HF_TOKEN lacks a permission" in str(error.hint)


def test_a_revision_that_does_not_exist() -> None:
    with answering(answer(404, X_Error_Code="RevisionNotFound")) as hub:
        error = asked(hub.url, revision="v9")
    assert isinstance(error, errors.NoSuchRevision)
    assert str(error) == "acme/tiny has no branch, tag or commit called v9"


@pytest.mark.parametrize(
    ("status", "headers"), [(403, {"X_Error_Message": "Access to this resource is disabled."}), (451, {})]
)
def test_a_repository_that_was_taken_away(status: int, headers: dict[str, str]) -> None:
    error = refused(status, **headers)
    assert isinstance(error, HubError)
    assert "acme/tiny has been disabled on http://127.0.0.1:" in str(error)


def test_too_many_requests_with_the_time_and_what_helps() -> None:
    error = refused(429, token=None, Retry_After="300")
    assert isinstance(error, errors.RateLimited)
    assert error.seconds == 300
    assert str(error).endswith("takes no more requests from here for 5 minutes")
    assert error.hint == "run again then; with a token (HF_TOKEN) more requests are allowed"
    error = refused(429, RateLimit='"api";r=0;t=55')
    assert str(error).endswith("takes no more requests from here for 55 s")
    assert error.hint == "run again then"


def test_a_hub_that_is_broken() -> None:
    error = refused(503, body={"error": "we are sorry\nvery"})
    assert isinstance(error, HubUnavailable)
    assert str(error).endswith(" fails with status 503: we are sorry")


def test_a_refusal_without_a_name_keeps_its_status_and_words() -> None:
    error = refused(418, X_Error_Message="teapot")
    assert isinstance(error, HubUnavailable)
    assert str(error).endswith(" refuses with status 418: teapot")


def test_what_the_hub_says_is_shown_without_the_token_and_without_control_characters() -> None:
    error = refused(500, body={"error": f"no \x1b[31m {TOKEN} {'x' * 500}"})
    assert "500: no [31m <token> xxx" in str(error)
    assert len(str(error)) < 300


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"<!DOCTYPE html><title>Welcome to the hotel</title>", "it sent a web page"),
        (b"", "it sent something that is not JSON"),
        (b"[" * 100_000, "it sent something that is not JSON"),
        (b"[]", "the answer is list, not an object"),
        (b"{}", "acme/tiny is at the commit None"),
        ({"sha": COMMIT.upper(), "siblings": []}, "acme/tiny is at the commit 'CCC"),
        ({"sha": COMMIT}, "acme/tiny comes without a list of files"),
        ({"sha": COMMIT, "siblings": [1]}, "a file is int, not an object"),
        ({"sha": COMMIT, "siblings": [{"rfilename": ""}]}, "a file is called ''"),
        ({"sha": COMMIT, "siblings": [{"rfilename": "a"}]}, "the size of 'a' is missing"),
        ({"sha": COMMIT, "siblings": [{"rfilename": "a", "size": -1}]}, "the size of 'a' is -1"),
        ({"sha": COMMIT, "siblings": [{"rfilename": "a", "size": True}]}, "the size of 'a' is True"),
        ({"sha": COMMIT, "siblings": [{"rfilename": "a", "size": 1.5}]}, "the size of 'a' is 1.5"),
        ({"sha": COMMIT, "siblings": [{"rfilename": "a", "size": 1 << 70}]}, "the size of 'a' is 118"),
        ({"sha": COMMIT, "siblings": [{"rfilename": "a", "size": 1, "blobId": "x"}]}, "the blob of 'a' is 'x'"),
        (
            {"sha": COMMIT, "siblings": [{"rfilename": "a", "size": 1, "lfs": {"size": 2, "sha256": "0" * 64}}]},
            "the size of 'a' is 1 or 2",
        ),
        (
            {"sha": COMMIT, "siblings": [{"rfilename": "a", "size": 1, "lfs": {"size": 1, "sha256": "0" * 63}}]},
            "the SHA-256 of 'a' is '000",
        ),
        ({"sha": COMMIT, "siblings": [{"rfilename": "a", "size": 1}] * 2}, "acme/tiny lists 'a' twice"),
    ],
)
def test_an_answer_that_is_not_a_hubs_is_named(body: object, what: str) -> None:
    error = refused(200, body=body)
    assert isinstance(error, HubUnavailable)
    assert f" does not answer as a hub does: {what}" in str(error)
    assert "HF_ENDPOINT" in str(error.hint)


def test_where_the_hub_keeps_large_files_a_refusal_is_not_about_the_repository() -> None:
    with answering(answer(403)) as storage, answering(answer(302, Location=f"{storage.url}/x")) as hub:
        error = asked(hub.url)
        assert isinstance(error, HubUnavailable)
        assert str(error) == f"{storage.url}, where the Hub keeps the file, refuses with status 403"


# --- what becomes of them ---


def test_11_28_what_the_hub_refuses_is_the_source_and_a_hub_that_is_not_reached_the_download() -> None:
    access = Access("https://hub.example.org", None, "none")
    assert errors.NoSuchRepository(REPO, access).code == ExitCode.SOURCE
    assert errors.connection_refused_error("https://hub.example.org").code == ExitCode.DOWNLOAD
    reason = errors.hub_broken_error("https://hub.example.org", 500, "")
    assert reason.code == ExitCode.DOWNLOAD
    assert isinstance(reason, SourceError)
    error = error_mapping.map_error(reason, repo=REPO, file="model.gguf", access=access, downloading=True)
    assert isinstance(error, errors.NotFetched)
    assert isinstance(error, DownloadError)
    assert error.reason is reason
    assert error.code == ExitCode.DOWNLOAD
    assert str(error) == "model.gguf of acme/tiny could not be fetched: https://hub.example.org fails with status 500"
    assert error.hint == reason.hint
    stopped = Interrupted()
    assert error_mapping.map_error(stopped, repo=REPO, access=access, downloading=True) is stopped


@pytest.mark.parametrize("repo", ["../tiny", "acme/..", "acme//tiny", "acme/", "", "a/b/c", "acme/ti\nny"])
def test_a_name_that_would_lead_elsewhere_is_never_asked_for(repo: str) -> None:
    with answering(answer(200, {})) as hub:
        with pytest.raises(HubError, match="cannot be the name of a repository"):
            HubClient(Access(hub.url, None, "none")).pin(repo, None)
        assert hub.questions == []


def raised(*answers: Answer | Callable[[Any], None]) -> Exception:
    """Return what huggingface_hub itself raises for an answer."""
    from huggingface_hub import get_session
    from huggingface_hub.utils._http import hf_raise_for_status

    with answering(*answers) as hub, pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is
        hf_raise_for_status(
            get_session().get(f"{hub.url}/api/models/acme/tiny", timeout=0.2 if silent in answers else 10)
        )
    return caught.value


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_trouble_of_the_hub_is_worth_another_try(status: int) -> None:
    assert error_mapping.is_transient(raised(answer(status)))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 416, 451, 501])
def test_a_refusal_is_not_worth_another_try(status: int) -> None:
    assert not error_mapping.is_transient(raised(answer(status)))


@pytest.mark.parametrize("fault", [silent, hang_up, half])
def test_the_network_is_worth_another_try(fault: Callable[[Any], None]) -> None:
    assert error_mapping.is_transient(raised(fault))


def test_a_link_to_the_storage_that_has_run_out_is_worth_another_try() -> None:
    assert error_mapping.is_transient(raised(answer(302, Location="/elsewhere"), answer(403)))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry_After": "7"}, 7),
        ({"Retry_After": "0"}, 0),
        ({"Retry_After": "-7"}, None),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "٣"}, None),
        ({"Retry_After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"RateLimit": '"api"; r=0; t=x'}, None),
        ({"RateLimit": '"api";r=0;t=55', "Retry_After": "3"}, 3),
    ],
)
def test_when_the_server_wants_to_be_asked_again(headers: dict[str, str], seconds: float | None) -> None:
    encoded = {name: value.encode().decode("latin-1") for name, value in headers.items()}
    assert error_mapping.retry_after(raised(answer(429, **encoded))) == seconds


def test_a_date_to_come_back_at_becomes_seconds() -> None:
    seconds = error_mapping.retry_after(raised(answer(503, Retry_After=formatdate(time.time() + 3600, usegmt=True))))
    assert seconds is not None
    assert 3000 < seconds <= 3600
