"""What people write to name a model on the Hub."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_runner.core.errors import SourceError, UsageError
from llama_runner.sources.hub.parse_model_name import BadName, HubName, classify_tag, looks_like_hub_name, parse

OWN = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("org/model", HubName("org/model")),
        ("org/model@v1.0", HubName("org/model", "v1.0")),
        ("org/model@feature/x.y", HubName("org/model", "feature/x.y")),
        ("org/model@refs/pr/1", HubName("org/model", "refs/pr/1")),
        ("org/model:Q4_K_M", HubName("org/model", None, "Q4_K_M")),
        ("org/model:refs/pr/1", HubName("org/model", None, "refs/pr/1")),
        ("org/model@refs/pr/1:Q4_K_M", HubName("org/model", "refs/pr/1", "Q4_K_M")),
        ("Org_1/Model-2.5_x", HubName("Org_1/Model-2.5_x")),
        ("gpt2", HubName("gpt2")),
        ("o/" + "m" * 94, HubName("o/" + "m" * 94)),
        ("https://huggingface.co/gpt2/tree/main/a%20b", HubName("gpt2", "main", None, "a b/")),
        ("gpt2@main", HubName("gpt2", "main")),
        ("hf://org/model", HubName("org/model")),
        ("hf://org/model/", HubName("org/model")),
        ("hf://models/org/model", HubName("org/model")),
        ("hf://org/model:Q8_0", HubName("org/model", None, "Q8_0")),
        ("hf://org/model@v1", HubName("org/model", "v1")),
        ("hf://org/model@refs/pr/1", HubName("org/model", "refs/pr/1")),
        ("hf://org/model@refs%2Fpr%2F1", HubName("org/model", "refs/pr/1")),
        ("hf://org/model@refs%2Fpr%2F1:Q8_0", HubName("org/model", "refs/pr/1", "Q8_0")),
        ("org/model@100%25", HubName("org/model", "100%25")),
        ("hf://org/model@refs/pr/1:Q8_0", HubName("org/model", "refs/pr/1", "Q8_0")),
        ("hf://org/model/a/b.gguf", HubName("org/model", None, None, "a/b.gguf")),
        ("hf://org/model/a#1@x%20.gguf", HubName("org/model", None, None, "a#1@x%20.gguf")),
        ("hf://org/model@v1/b.gguf", HubName("org/model", "v1", None, "b.gguf")),
        ("hf://org/model@refs/pr/1/b.gguf", HubName("org/model", "refs/pr/1", None, "b.gguf")),
        ("hf://org/model@a%2Fb/c/d.gguf", HubName("org/model", "a/b", None, "c/d.gguf")),
        ("hf://org/model/UD-IQ1_S/", HubName("org/model", None, None, "UD-IQ1_S/")),
        ("https://huggingface.co/org/model", HubName("org/model")),
        ("HTTPS://HuggingFace.co/org/model/", HubName("org/model")),
        ("https://www.huggingface.co/org/model?library=gguf#top", HubName("org/model")),
        ("https://huggingface.co:443/org/model", HubName("org/model")),
        ("https://hf.co/org/model:Q4_K_M", HubName("org/model", None, "Q4_K_M")),
        ("https://huggingface.co/gpt2", HubName("gpt2")),
        ("hf.co/org/model:Q4_K_M", HubName("org/model", None, "Q4_K_M")),
        ("huggingface.co/org/model@v1:Q8_0", HubName("org/model", "v1", "Q8_0")),
        ("hf.co/org/model@refs/pr/1:Q8_0", HubName("org/model", "refs/pr/1", "Q8_0")),
        ("https://huggingface.co/org/model/tree/main", HubName("org/model", "main")),
        ("https://huggingface.co/org/model/tree/main/", HubName("org/model", "main")),
        ("https://huggingface.co/org/model/tree/main/UD-IQ1_S", HubName("org/model", "main", None, "UD-IQ1_S/")),
        ("https://huggingface.co/org/model/tree/refs%2Fpr%2F1", HubName("org/model", "refs/pr/1")),
        ("https://huggingface.co/org/model/commit/0123abc", HubName("org/model", "0123abc")),
        ("https://huggingface.co/org/model/blob/main/a/b.gguf", HubName("org/model", "main", None, "a/b.gguf")),
        (
            "https://huggingface.co/org/model/resolve/v1/b%20c.gguf?download=true",
            HubName("org/model", "v1", None, "b c.gguf"),
        ),
        (
            "https://huggingface.co/org/model/resolve/refs%2Fpr%2F1/b.gguf",
            HubName("org/model", "refs/pr/1", None, "b.gguf"),
        ),
        (
            "https://huggingface.co/org/model/resolve/refs/pr/1/b.gguf",
            HubName("org/model", "refs/pr/1", None, "b.gguf"),
        ),
        ("https://huggingface.co/gpt2/resolve/main/b.gguf", HubName("gpt2", "main", None, "b.gguf")),
        ("https://huggingface.co/org/model/blob/v1/run/log:2", HubName("org/model", "v1", None, "run/log:2")),
        ("http://127.0.0.1:8000/org/model", HubName("org/model")),
        ("http://127.0.0.1:8000/org/model/resolve/main/b.gguf", HubName("org/model", "main", None, "b.gguf")),
    ],
)
def test_a_name_is_understood_in_each_of_its_forms(text: str, name: HubName) -> None:
    assert parse(text, endpoint=OWN) == name
    assert parse(str(name)) == name


@pytest.mark.parametrize("endpoint", ["https://hub.example/hf", "https://hub.example/hf/", "http://[::1]:8000"])
def test_a_hub_elsewhere_is_known_by_its_whole_address(endpoint: str) -> None:
    assert parse(f"{endpoint}/org/model:Q8_0", endpoint=endpoint) == HubName("org/model", None, "Q8_0")
    with pytest.raises(BadName, match="is not the Hub"):
        parse("https://hub.example.evil/org/model", endpoint=endpoint)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("../model", "it is a path"),
        ("org/..", "it is a path"),
        ("./model", "it is a path"),
        ("/org/model", "absolute path"),
        ("org\\model", "backslashes"),
        ("org/mo\x1bdel", "control characters"),
        ("org/model@\udcff", "control characters"),
        ("org/model:x\u202ey", "control characters"),
        ("hf://org/model@v%E2%80%AE1", "is no revision"),
        ("org/mo del", "spaces"),
        ("org/mo\u3000del", "spaces"),
        ("hf://org/mo del", "characters other than"),
        ("hf://org/model@a b/x.gguf", "is no revision"),
        ("org/m" + "o" * 300, "has 305 characters, and no more than 96"),
        ("o" * 97, "97 characters, and no more than 96"),
        ("o" * 3000, "3000 characters"),
        ("org/", "one slash between"),
        ("", "one slash between"),
        ("a//b", "one slash between"),
        ("a/b/c", "one slash between"),
        ("org/.model", "begins or ends"),
        ("org/model.", "begins or ends"),
        ("-org/model", "begins or ends"),
        ("org/model-", "begins or ends"),
        ("org/model.git", "begins or ends"),
        ("org/mo--del", "-- and .. are not allowed"),
        ("org/mo..del", "-- and .. are not allowed"),
        ("org/größe", "characters other than"),
        ("org/mo%64el", "characters other than"),
        ("org/model@", "missing after @ or :"),
        ("org/model:", "missing after @ or :"),
        ("org/model@:Q8_0", "missing after @ or :"),
        ("org/model@v1:", "missing after @ or :"),
        ("org/model:a:b", "more than one colon"),
        ("org/model@a:b:c", "more than one colon"),
        ("org/model@a@b", "more than one @"),
        ("org/model:a@b", "more than one colon, or one before"),
        ("org/model@../x", "is no revision"),
        ("org/model@a/../b", "is no revision"),
        ("org/model@-x", "is no revision"),
        ("org/model@a..b", "is no revision"),
        ("org/model@a?b", "is no revision"),
        ("org/model@" + "v" * 201, "is no revision"),
        ("hf://org/model/../../x.gguf", "of the file, it would leave"),
        ("hf://org/model/a:b.gguf", "of the file, it would leave"),
        ("https://huggingface.co/org/model/resolve/main/..%2Fx.gguf", "of the file, it would leave"),
        ("https://huggingface.co/org/model/resolve/main/a%00b.gguf", "of the file, it has control"),
        ("https://huggingface.co/org/model/resolve/%2e%2e/x.gguf", "is no revision"),
        ("https://huggingface.co/org/model/resolve/main", "a file is missing after /resolve/main"),
        ("https://huggingface.co/org/model/tree", "a revision is missing after /tree/"),
        ("https://huggingface.co/datasets/org/data", "one of the Hub's datasets"),
        ("https://huggingface.co/datasets/org/data/tree/main", "one of the Hub's datasets"),
        ("hf.co/spaces/org/app", "one of the Hub's spaces"),
        ("hf://datasets/org/data/x.gguf", "one of the Hub's datasets"),
        ("datasets/data", "one of the Hub's datasets"),
        ("https://huggingface.co/", "names no repository"),
        ("hf.co/hf.co/model", "names no repository"),
        ("https://huggingface.co/models?search=x", "names no repository"),
        ("https://huggingface.co/org/model/discussions/3", "a page about a repository"),
        ("https://example.com/org/model", "example.com is not the Hub"),
        ("https://huggingface.co.evil.com/org/model", "is not the Hub"),
        ("http://127.0.0.1:80001/org/model", "is not the Hub"),
        ("ftp://huggingface.co/org/model", "ftp:// is not understood"),
    ],
)
def test_what_is_no_name_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(BadName) as caught:
        parse(text, endpoint=OWN)
    assert why in str(caught.value)
    assert isinstance(caught.value, UsageError)
    assert len(str(caught.value)) < 300
    assert "\x1b" not in str(caught.value)
    assert "ORG/MODEL" in str(caught.value.hint)


@pytest.mark.parametrize(
    "text",
    [
        "https://user:SECRET@huggingface.co/org/model",
        "https://SECRET@huggingface.co/org/model",
        "https://user:SEC/SECRET@huggingface.co/org/model",
        "https://user:a@SECRET@huggingface.co/org/model",
        "https://user:SECRET@example.com/org/model",
        "HTTPS://user:SECRET@127.0.0.1:8000/org/model",
        "user:SECRET@huggingface.co/org/model",
        "user:SEC/SECRET@huggingface.co/org/model",
        "SECRET@hf.co/org/model",
        "SECRET/x@www.huggingface.co/org/model",
        "a/b:SECRET/x@hf.co/org/model",
        "https://SECRET/@huggingface.co/org/model",
        "https://user:SECRET",
        "https://user:SECRET/org/model",
        "user:SECRET@example.com/org/model",
        "ftp://user:SECRET@huggingface.co/org/model",
        "https://example.com/org/model?token=SECRET",
        "https://huggingface.co/datasets/org/model?token=SECRET",
        "https://hf_SECRET/org/model",
        "https://huggingface.co/hf_SECRET!",
        "org/model@v1@hf_SECRET",
    ],
)
def test_what_may_be_a_secret_is_never_repeated(text: str) -> None:
    secret = "0123456789abcdefABCDEF"
    for written in (secret, f"hf_{secret}"):
        with pytest.raises(BadName) as caught:
            parse(text.replace("SECRET", written), endpoint=OWN)
        for said in (str(caught.value), repr(caught.value), caught.value.text, caught.value.why):
            assert secret.lower() not in said.lower()
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "text",
    [
        "org/model@a@b",
        "hf://org/mo--del@v1",
        "https://huggingface.co/org/mo--del@v1",
        "org/mo--del:Q8_0",
        OWN + "/a--b",
    ],
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    with pytest.raises(BadName) as caught:
        parse(text, endpoint=OWN)
    assert caught.value.text == text


def test_a_long_text_is_shown_by_its_beginning() -> None:
    with pytest.raises(BadName) as caught:
        parse("x" * 97)
    assert caught.value.text == "x" * 77 + "…"


@pytest.mark.parametrize("text", ["/org%2FTOKEN", "org/model_TOKEN!", "https://exampleTOKEN/org/model", "xTOKEN://a"])
def test_a_token_is_not_repeated_even_where_it_sticks_to_a_word(text: str) -> None:
    with pytest.raises(BadName) as caught:
        parse(text.replace("TOKEN", "hf_0123456789abcdefABCDEF"))
    assert "0123456789abcdef" not in f"{caught.value} {caught.value.text} {caught.value.why}"


def test_credentials_say_where_a_token_belongs() -> None:
    with pytest.raises(BadName, match=r"'https://…@huggingface\.co/org/model'.*a token goes into HF_TOKEN"):
        parse("https://me:secret@huggingface.co/org/model")


PART = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._]{0,8}[A-Za-z0-9])?", fullmatch=True).filter(
    lambda part: (
        ".." not in part and not part.endswith(".git") and part not in ("datasets", "spaces", "models", "api", "refs")
    )
)
REVISION = st.one_of(PART, st.builds("{}/{}".format, PART, PART), st.builds("refs/pr/{}".format, st.integers(1, 99)))
FILE = st.one_of(PART, st.builds("{} #%{}/{}.gguf".format, PART, PART, PART), st.builds("{}/{}/".format, PART, PART))


@settings(max_examples=500)
@given(
    st.builds("{}/{}".format, PART, PART),
    st.none() | REVISION,
    st.one_of(st.tuples(st.none() | PART, st.none()), st.tuples(st.none(), FILE)),
)
def test_the_text_of_a_name_is_a_name_again(
    repo: str, revision: str | None, rest: tuple[str | None, str | None]
) -> None:
    name = HubName(repo, revision, *rest)
    assert parse(str(name)) == name


@settings(max_examples=500)
@given(
    st.text(max_size=60)
    | st.builds(
        "{}{}".format,
        st.sampled_from(["", "hf://", "https://hf.co/", "hf.co/o/m", OWN, OWN + "/o/m/", "hf://o/m@", "a@https://"]),
        st.text(alphabet="ab/@:.-%2e5c0F?# hf\\\x00\ud800\u202eü[]", max_size=30),
    )
)
def test_whatever_is_written_is_a_name_or_refused(text: str) -> None:
    try:
        name = parse(text, endpoint=OWN)
    except BadName:
        return
    assert parse(str(name)) == name


@pytest.mark.parametrize(
    "text", ["org/model", "org/model@a/b", "org/model:Q8_0", "hf.co/o/m", "hf://gpt2", "me:x@hf.co/o/m"]
)
def test_what_is_taken_for_a_name_unasked(text: str) -> None:
    assert looks_like_hub_name(text)


@pytest.mark.parametrize("text", ["gpt2", "a/b/c", "model.gguf", "", "a b/c", "/x/y", "x:y"])
def test_what_is_not_taken_for_a_name_unless_it_is_said_to_be_one(text: str) -> None:
    assert not looks_like_hub_name(text)


def test_a_file_without_revision_is_one_of_the_main_branch_where_an_address_must_say_it() -> None:
    assert str(HubName("gpt2", None, None, "x.gguf")) == "https://huggingface.co/gpt2/resolve/main/x.gguf"
    assert str(HubName("gpt2", "a/b", None, "x/")) == "https://huggingface.co/gpt2/tree/a%2Fb/x/"


def test_a_revision_wins_over_a_quantization_of_its_name() -> None:
    nothing: list[str] = []
    for place in ("branches", "tags", "commits"):
        refs = {"branches": nothing, "tags": nothing, "commits": nothing, place: ["Q4_K_M"]}
        assert classify_tag("Q4_K_M", **refs) == "revision"
    for tag in ("Q4_K_M", "ud-q4_k_xl", "fp16", "IQ1_S"):
        assert classify_tag(tag, branches=["main"], tags=[], commits=[]) == "quantization"


def test_a_tag_that_is_neither_lists_both() -> None:
    with pytest.raises(
        SourceError, match="is neither a revision of that repository nor a quantization; it has the revisions"
    ) as caught:
        classify_tag("Q4KM", branches=["main", *(f"b{number}" for number in range(12))], tags=["v1"], commits=[])
    assert isinstance(caught.value, SourceError)
    assert str(caught.value) == (
        "'Q4KM' is neither a revision of that repository nor a quantization; it has the revisions "
        "main, b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10 and 2 more"
    )
    assert "Q4_K_M" in str(caught.value.hint)
    assert "UD-Q4_K_XL" in str(caught.value.hint)
