"""Where the server is and which key to use: what wins, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bursar import AsyncBursar, Bursar, ConfigurationError
from bursar.sdk.configuration import DEFAULT_BASE_URL, clean_url, find, profiles_path

PROFILES = """
[default]
api_key = "bpk_default"
base_url = "https://default.example"

[staging]
api_key = "bpk_staging"
base_url = "https://staging.example/v1/"

[local]
api_key = "bpk_local"
"""


def write(text: str = PROFILES, *, mode: int = 0o600) -> Path:
    """Have profiles."""
    path = profiles_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def found(
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    profile: str | None = None,
    **environment: str,
) -> tuple[str, str | None]:
    """What a client would use."""
    place = find(api_key=api_key, base_url=base_url, profile=profile, environment=environment)
    return place.base_url, place.api_key


def test_without_anything_it_is_this_machine_and_no_key() -> None:
    assert found() == (DEFAULT_BASE_URL, None)


def test_an_argument_wins_over_the_environment_and_that_over_the_default_profile() -> None:
    write()
    env = {"BURSAR_API_KEY": "bpk_env", "BURSAR_BASE_URL": "http://env"}
    assert found() == ("https://default.example", "bpk_default")
    assert found(**env) == ("http://env", "bpk_env")
    assert found(api_key="bpk_arg", base_url="http://arg", **env) == ("http://arg", "bpk_arg")
    assert found(api_key="bpk_arg", **env) == ("http://env", "bpk_arg")


def test_a_profile_that_is_named_as_an_argument_wins_over_the_environment() -> None:
    write()
    env = {"BURSAR_API_KEY": "bpk_env", "BURSAR_BASE_URL": "http://env"}
    assert found(profile="staging", **env) == ("https://staging.example", "bpk_staging")
    assert found(profile="staging", api_key="bpk_arg")[1] == "bpk_arg"
    assert found(BURSAR_PROFILE="staging") == ("https://staging.example", "bpk_staging")
    assert found(profile="local", BURSAR_PROFILE="staging")[1] == "bpk_local"


def test_a_profiles_key_goes_to_that_profiles_address_only() -> None:
    write()
    assert found(base_url="https://elsewhere.example") == ("https://elsewhere.example", None)
    assert found(BURSAR_BASE_URL="https://elsewhere.example")[1] is None
    assert found(profile="staging", base_url="https://elsewhere.example")[1] is None
    assert found(profile="staging", base_url="https://staging.example")[1] == "bpk_staging"
    assert found(profile="local", base_url=DEFAULT_BASE_URL)[1] == "bpk_local"


def test_a_profile_that_is_named_must_be_there() -> None:
    for named in ({"profile": "nobody"}, {"BURSAR_PROFILE": "nobody"}):
        with pytest.raises(ConfigurationError, match="no profile 'nobody'"):
            found(**named)
    write()
    with pytest.raises(ConfigurationError, match="no profile 'nobody'"):
        found(profile="nobody")


@pytest.mark.parametrize(
    "text", ["[default", "default = 1", "[default]\nkey = 'x'", "[default]\napi_key = 1", "\0"]
)
def test_profiles_that_make_no_sense_are_refused(text: str) -> None:
    write(text)
    with pytest.raises(ConfigurationError, match=r"profiles\.toml"):
        found()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_profiles_that_others_can_read_are_refused(mode: int) -> None:
    write(mode=mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        found()


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://b.example", "https://b.example"),
        ("https://b.example/", "https://b.example"),
        ("https://b.example/v1", "https://b.example"),
        ("https://b.example/v1/", "https://b.example"),
        (" http://b.example:8080/bursar/v1 ", "http://b.example:8080/bursar"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_an_address_may_end_as_those_of_other_clients_do(given: str, used: str) -> None:
    assert clean_url(given) == used


@pytest.mark.parametrize(
    "url",
    [
        *("", "b.example", "ftp://b.example", "http://", "http://u:secret@b.example"),
        *("http://b/?k=1", "http://b/#x", "http://b:port", "http://b:99999", "http://[::1"),
        "file:///etc/passwd",
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Bursar("bpk_x", base_url=url or " ")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("key", [" ", "bpk x", "bpk_ä", "bpk_x\r\nhost: evil", "\t"])
def test_what_cannot_stand_in_a_header_is_no_key_and_is_not_repeated(key: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        AsyncBursar(key)
    assert key.strip() == "" or key not in str(refused.value)


def test_a_key_from_a_file_may_end_in_a_line_break() -> None:
    assert Bursar("bpk_x\n").options.api_key == "bpk_x"


def test_options_are_checked() -> None:
    for options in ({"timeout_s": 0}, {"timeout_s": -1.0}, {"max_retries": -1}):
        with pytest.raises(ConfigurationError):
            Bursar("bpk_x", **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        Bursar("bpk_x").with_options(max_retries=99)


@pytest.mark.parametrize("kind", [Bursar, AsyncBursar])
def test_other_options_make_another_client_on_the_same_connections(
    kind: type[Bursar | AsyncBursar],
) -> None:
    first = kind("bpk_x", timeout_s=5, max_retries=1)
    other = first.with_options(timeout_s=None, max_retries=3)
    assert (other.options.timeout_s, other.options.max_retries) == (None, 3)
    assert (first.options.timeout_s, first.options.max_retries) == (5, 1)
    assert other.connection is first.connection
    assert type(other) is kind
    assert first.with_options(api_key="bpk_y").options.api_key == "bpk_y"
    assert first.with_options().options == first.options
    assert other.account.options is other.options
