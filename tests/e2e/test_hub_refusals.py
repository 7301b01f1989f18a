"""Who may not, and what is in the way: each is told apart on the command line, with its exit status and its way out."""

from __future__ import annotations

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import Command, says
from tests.fakehub.hub import Hub
from tests.fakehub.models import write_gguf

pytestmark = pytest.mark.usefixtures("user_of_the_hub")

REPO = "acme/model"
NAME = "m-Q8_0.gguf"
TOKEN = "hf_ThisMustNotBeSeenAnywhere"


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """Return a GGUF file of a megabyte."""
    return write_gguf(tmp_path / "made.gguf", 1 << 20)


@pytest.fixture
def gated(hub: Hub, gguf: Path) -> None:
    """Put a gated model on the hub, and one that is made from safetensors."""
    hub.tokens = {TOKEN: {}, "hf_member": {"accepted": {REPO, "acme/tensors"}}}
    hub.repo(REPO, {NAME: gguf}, gated=True)
    hub.repo("acme/tensors", {"config.json": b"{}", "model.safetensors": b"x"}, gated=True)


@pytest.mark.usefixtures("gated")
@pytest.mark.parametrize(("name", "code"), [(REPO, 4), ("acme/tensors", 3)], ids=["download", "config to look at"])
def test_pain_09_gated_repositories_tell_what_is_missing_and_where_to_get_it(
    hub: Hub, root: Path, llama_runner: Command, name: str, code: int
) -> None:
    page = f"accept its terms at {hub.url}/{name}"
    refusals = {
        "": (f"{name} is gated, and no token is set", page, "hf auth login"),
        TOKEN: (f"{name} is gated, and the owner of the token from HF_TOKEN has no access yet", page),
        "hf_ThisIsOfNobodyAtAll": ("refuses the token from HF_TOKEN: it is invalid or expired", "settings/tokens"),
    }
    for token, texts in refusals.items():
        result = llama_runner("prepare", name, "--root", root, env={"HF_TOKEN": token})
        says(result, code, *texts)
        assert "hf_This" not in result.out + result.err
    for path in [path for path in root.rglob("*") if path.is_file() and "bins" not in path.parts]:
        assert b"hf_This" not in path.read_bytes(), path
    assert not list((root / "models").rglob("*.gguf"))
    assert {one.authorization for one in hub.requests if one.which == "cdn"} <= {None}


@pytest.mark.usefixtures("gated")
def test_pain_09_once_the_terms_are_accepted_the_same_command_goes_on(
    hub: Hub, root: Path, llama_runner: Command
) -> None:
    assert llama_runner("prepare", REPO, "--root", root, env={"HF_TOKEN": TOKEN}).code == 4
    hub.tokens[TOKEN]["accepted"] = {REPO}
    assert llama_runner("prepare", REPO, "--root", root, env={"HF_TOKEN": TOKEN}).code == 0


def test_pain_09_a_private_repository_and_none_at_all_are_told_apart_as_far_as_the_hub_does(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path
) -> None:
    hub.tokens = {TOKEN: {}, "hf_member": {"readable": {REPO}}}
    hub.repo(REPO, {NAME: gguf}, private=True)
    for name in (REPO, "acme/nothing"):
        texts = (f"{name} does not exist on {hub.url}, or is private", "check the name")
        says(llama_runner("prepare", name, "--root", root), 3, *texts, "HF_TOKEN")
        says(
            llama_runner("prepare", name, "--root", root, env={"HF_TOKEN": TOKEN}), 3, *texts, "the token from HF_TOKEN"
        )
    assert llama_runner("prepare", REPO, "--root", root, env={"HF_TOKEN": "hf_member"}).code == 0


def test_pain_09_a_bad_token_is_told_even_where_none_is_needed(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path, tmp_path: Path
) -> None:
    hub.repo(REPO, {NAME: gguf})
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    result = llama_runner("prepare", REPO, "--root", root, "--token-file", file)
    says(result, 3, f"refuses the token from --token-file {file}", "or go without one for a public model")
    assert TOKEN not in result.err
    file.write_text("two words\n")
    result = llama_runner("prepare", REPO, "--root", root, "--token-file", file)
    says(result, 2, str(file))
    assert "two words" not in result.err
    says(
        llama_runner("prepare", REPO, "--root", root, "--token-file", tmp_path / "none"),
        2,
        "cannot read the token file",
    )


def test_nothing_is_asked_but_what_is_needed_and_nothing_is_left_in_the_users_cache(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path, tmp_path: Path
) -> None:
    commit = hub.repo(REPO, {NAME: gguf}).head
    assert llama_runner("prepare", REPO, "--root", root).code == 0
    assert [one.path.partition("?")[0] for one in hub.requests] == [
        f"/api/models/{REPO}/revision/main",
        f"/{REPO}/resolve/{commit}/{NAME}",
        f"/cdn/{REPO}/{commit}/{NAME}",
    ]
    assert not list((tmp_path / "hf home").rglob("*"))


def test_a_revision_or_a_tag_that_is_not_there(hub: Hub, root: Path, llama_runner: Command, gguf: Path) -> None:
    hub.repo(REPO, {NAME: gguf}).tag("v1", hub.repos[REPO].head)
    says(llama_runner("prepare", f"{REPO}@v2", "--root", root), 3, f"{REPO} has no branch, tag or commit called v2")
    says(llama_runner("prepare", f"{REPO}:v2", "--root", root), 3, "neither a revision", "main, v1", "Q4_K_M")
    says(llama_runner("prepare", f"{REPO}@{'0' * 40}", "--root", root), 3, "0000")
    says(llama_runner("prepare", f"{REPO}:Q2_K", "--root", root), 3, "no GGUF file there is", NAME, "1.0 MiB")


@pytest.mark.parametrize(
    ("kind", "facts", "text"),
    [
        ("500", {}, "fails with status 500"),
        ("429", {"retry_after": 0}, "takes no more requests from here"),
        ("403", {"message": "not today"}, "denies access to acme/model: not today"),
        ("451", {"message": "by order of a court"}, "has been disabled"),
        ("404", {}, "does not exist"),
        ("407", {}, "proxy"),
        ("html", {}, "it sent a web page"),
        ("redirect_loop", {}, "redirect"),
    ],
)
def test_a_hub_that_refuses_is_told_when_the_name_is_resolved_and_when_the_file_is_fetched(
    hub: Hub, root: Path, llama_runner: Command, gguf: Path, kind: str, facts: dict[str, object], text: str
) -> None:
    hub.repo(REPO, {NAME: gguf})
    hub.fault(kind, path="/api/*", times=None, **facts)
    code = 3 if kind in ("403", "451", "404") else 4
    says(llama_runner("prepare", REPO, "--root", root), code, text)
    hub.faults.clear()
    assert sorted(path.name for path in root.iterdir() if path.name != ".llama_runner") == ["bins"]
    if kind in ("500", "429"):  # tried again for a while, which test_transfer_faults sees
        return
    hub.fault(kind, path="*/resolve/*", times=None, **facts)
    says(llama_runner("prepare", REPO, "--root", root), 4, NAME)
    assert not list((root / "models").rglob("*.gguf"))
    hub.faults.clear()
    assert llama_runner("prepare", REPO, "--root", root).code == 0


def test_a_hub_that_fails_for_a_moment_is_asked_again(hub: Hub, root: Path, llama_runner: Command, gguf: Path) -> None:
    hub.repo(REPO, {NAME: gguf})
    hub.fault("500", path="/api/*", times=2)
    hub.fault("429", path="*/resolve/*", times=1, retry_after=1)
    hub.fault("503", path="/cdn/*", times=1)
    result = llama_runner("prepare", REPO, "--root", root, "--json")
    assert result.code == 0, result
    assert Path(result.json["model"]).read_bytes() == gguf.read_bytes()
    assert "trying again in" in result.err


def test_pain_08_the_way_to_the_hub_is_broken_in_ways_that_are_told_apart(root: Path, llama_runner: Command) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    texts = {
        "http://no-such-host.invalid": "no address is known for no-such-host.invalid",
        f"http://127.0.0.1:{port}": "the connection was refused",
    }
    cases = [(endpoint, command) for endpoint in texts for command in ("plan", "prepare")]
    with ThreadPoolExecutor(len(cases)) as pool:  # each command tries again for seconds
        results = pool.map(
            lambda case: llama_runner(case[1], REPO, "--root", root, env={"HF_ENDPOINT": case[0]}), cases
        )
        for (endpoint, _), result in zip(cases, results, strict=True):
            says(result, 4, f"{endpoint} cannot be reached: {texts[endpoint]}", "HF_ENDPOINT")
    for endpoint in ("hub.example.org", "ftp://hub.example.org", "http://", "http://a b"):
        says(llama_runner("prepare", REPO, "--root", root, env={"HF_ENDPOINT": endpoint}), 2, "HF_ENDPOINT")


def test_a_hub_that_never_answers_is_given_up(root: Path, llama_runner: Command) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        env = {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}", "HF_HUB_ETAG_TIMEOUT": "1"}
        says(llama_runner("prepare", REPO, "--root", root, env=env), 4, "no answer in time", "HF_HUB")


def test_pain_08_a_mirror_is_asked_through_a_proxy(hub: Hub, root: Path, llama_runner: Command, gguf: Path) -> None:
    """The hub takes the part of the proxy: it knows the mirror, whose name means nothing here."""
    hub.repo(REPO, {NAME: gguf})
    env = {"HF_ENDPOINT": "http://mirror.invalid", "HTTP_PROXY": hub.url, "http_proxy": hub.url}
    assert llama_runner("prepare", REPO, "--root", root, env=env).code == 0
    assert hub.requests
    assert {one.host for one in hub.requests if "/api/" in one.path} == {"mirror.invalid"}
    env |= dict.fromkeys(("HTTP_PROXY", "http_proxy"), "http://user:secret@127.0.0.1:9")
    result = llama_runner("prepare", "acme/other", "--root", root, env=env)
    says(result, 4, "the proxy http://127.0.0.1:9 fails", "HTTP_PROXY")
    assert "secret" not in result.err


def test_pain_08_a_certificate_of_ones_own_authority(
    root: Path, llama_runner: Command, gguf: Path, tmp_path: Path, certificate: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Hub(tmp_path / "secure hub", tls=context) as hub:
        hub.repo(REPO, {NAME: gguf})
        env = {"HF_ENDPOINT": hub.url}
        says(
            llama_runner("prepare", REPO, "--root", root, env=env),
            4,
            "its certificate is not accepted",
            "SSL_CERT_FILE",
        )
        env["SSL_CERT_FILE"] = str(tmp_path / "none.pem")
        says(llama_runner("prepare", REPO, "--root", root, env=env), 4, "none.pem")
        env["SSL_CERT_FILE"] = str(certificate)
        result = llama_runner("prepare", REPO, "--root", root, "--json", env=env)
        assert Path(result.json["model"]).read_bytes() == gguf.read_bytes()
