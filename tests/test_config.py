"""Settings: which source wins, what is refused and what is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from bursar.config import ConfigError, Settings, UpstreamSettings

UPSTREAM = """
[[upstreams]]
name = "local"
base_url = "http://127.0.0.1:9001/v1/"
api_key_env = "LOCAL_KEY"
models = ["gpt-*", "my-model"]
rename = { "fast" = "gpt-4o-mini" }
"""


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is set but what the test sets, and the default data directory is empty."""
    import os

    for name in os.environ:
        if name.startswith("BURSAR_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write(path: Path, text: str) -> Path:
    """Make a settings file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_defaults_serve_on_loopback_from_a_folder_here() -> None:
    settings = Settings.load()
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8080, 1)
    assert settings.resolved_database_url.endswith("/bursar-data/bursar.db")
    assert settings.resolved_database_url.startswith("sqlite+aiosqlite:////")
    assert settings.url == "http://127.0.0.1:8080"


def test_command_line_beats_environment_beats_file_beats_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = write(tmp_path / "b.toml", 'host = "127.0.0.2"\nport = 1\nworkers = 1\ndrain_s = 7')
    monkeypatch.setenv("BURSAR_HOST", "127.0.0.3")
    monkeypatch.setenv("BURSAR_PORT", "2")
    settings = Settings.load(file, {"port": 3, "host": None})
    assert (settings.host, settings.port, settings.drain_s) == ("127.0.0.3", 3, 7)


def test_file_lies_in_the_data_directory_wherever_that_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path / "one" / "bursar.toml", "port = 1")
    write(tmp_path / "two" / "bursar.toml", "port = 2")
    monkeypatch.setenv("BURSAR_DATA_DIR", str(tmp_path / "one"))
    assert Settings.load().port == 1
    assert Settings.load(overrides={"data_dir": tmp_path / "two"}).port == 2


def test_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURSAR_PORT", "")
    assert Settings.load().port == 8080


def test_upstreams_come_from_the_file(tmp_path: Path) -> None:
    (upstream,) = Settings.load(write(tmp_path / "b.toml", UPSTREAM)).upstreams
    assert upstream.base_url == "http://127.0.0.1:9001/v1"
    assert upstream.models == ("gpt-*", "my-model")
    assert upstream.rename == {"fast": "gpt-4o-mini"}
    assert upstream.client == "pool"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("postgres://u:pw@db/x", "postgresql+asyncpg://u:pw@db/x"),
        ("postgresql://u:pw@db/x", "postgresql+asyncpg://u:pw@db/x"),
        ("postgresql+asyncpg://u:pw@db/x", "postgresql+asyncpg://u:pw@db/x"),
        ("sqlite:////tmp/x.db", "sqlite+aiosqlite:////tmp/x.db"),
    ],
)
def test_database_url_gets_its_driver(given: str, meant: str) -> None:
    assert Settings(database_url=given).resolved_database_url == meant  # type: ignore[arg-type]


def test_passwords_are_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOCAL_KEY", "sk-very-secret")
    file = write(tmp_path / "b.toml", 'database_url = "postgresql://u:hunter2@db/x"\n' + UPSTREAM)
    settings = Settings.load(file)
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert settings.upstreams[0].read_api_key() == "sk-very-secret"
    assert "hunter2" not in shown
    assert "sk-very-secret" not in shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port = 70000", ["b.toml", "port", "65535"]),
        ("prot = 1", ["b.toml", "no setting prot"]),
        ("port = ", ["b.toml", "TOML"]),
        ('database_url = "mysql://u:hunter2@x"', ["b.toml", "database_url"]),
        ("workers = 2", ["b.toml", "workers", "PostgreSQL"]),
        ('log_level = "loud"', ["b.toml", "log_level", "debug"]),
        ('credit = "-1"', ["b.toml", "credit"]),
        ('trusted_proxies = ["10.0.0.1/8"]', ["b.toml", "trusted_proxies.0", "first address"]),
        ('trusted_proxies = ["proxy"]', ["b.toml", "trusted_proxies.0", "network"]),
        (UPSTREAM * 2, ["b.toml", "upstreams", "local", "taken"]),
        (UPSTREAM.replace('"local"', '"sandbox"'), ["b.toml", "upstreams", "sandbox"]),
        (UPSTREAM.replace("http:", "ftp:"), ["b.toml", "upstreams.0.base_url", "http"]),
        (UPSTREAM.replace("//127", "//user:hunter2@127"), ["base_url", "credentials"]),
        (UPSTREAM.replace("gpt-*", "gpt-[ab]"), ["upstreams.0.models.0", "wild"]),
        (UPSTREAM + "\ntimeout = 1", ["no setting upstreams.0.timeout"]),
        (UPSTREAM + '\napi_key_file = "x"', ["upstreams.0", "exclude each other"]),
        (UPSTREAM + '\nproxy = "http://p:1"', ["upstreams.0", "aiohttp"]),
        ('[[upstreams]]\nname = "x"\nbase_url = "http://x"', ["upstreams.0", "what it serves"]),
    ],
)
def test_mistake_in_the_file_is_one_sentence_that_names_it(
    text: str, words: list[str], tmp_path: Path
) -> None:
    file = write(tmp_path / "b.toml", text)
    with pytest.raises(ConfigError) as caught:
        Settings.load(file)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert "hunter2" not in message


def test_trusted_proxies_are_a_list_and_in_the_environment_one_with_commas(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = write(tmp_path / "b.toml", 'trusted_proxies = ["::1", "10.0.0.0/8"]')
    assert Settings.load().trusted_proxies == ()
    assert Settings.load(file).trusted_proxies == ("::1/128", "10.0.0.0/8")
    monkeypatch.setenv("BURSAR_TRUSTED_PROXIES", "::ffff:192.0.2.1, 10.0.0.0/8,")
    assert Settings.load(file).trusted_proxies == ("192.0.2.1/32", "10.0.0.0/8")
    monkeypatch.setenv("BURSAR_TRUSTED_PROXIES", "10.0.0.1/8")
    with pytest.raises(ConfigError, match="environment variable BURSAR_TRUSTED_PROXIES"):
        Settings.load()


def test_mistakes_elsewhere_name_the_variable_or_the_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match="option --max-body-bytes"):
        Settings.load(overrides={"max_body_bytes": 1})
    monkeypatch.setenv("BURSAR_PORT", "many")
    with pytest.raises(ConfigError, match="environment variable BURSAR_PORT"):
        Settings.load()
    monkeypatch.setenv("BURSAR_UPSTREAMS", "{")
    with pytest.raises(ConfigError, match="upstreams"):
        Settings.load()


def test_file_that_was_named_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        Settings.load(tmp_path / "none.toml")
    monkeypatch.setenv("BURSAR_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match="does not exist"):
        Settings.load()
    with pytest.raises(ConfigError, match="cannot be read"):
        Settings.load(tmp_path)


def upstream(**fields: object) -> UpstreamSettings:
    """An upstream with these fields."""
    return UpstreamSettings.model_validate(
        {"name": "x", "base_url": "http://x", "models": ["*"], **fields}
    )


def test_api_key_comes_from_its_file_without_the_line_end(tmp_path: Path) -> None:
    assert upstream().read_api_key() is None
    file = write(tmp_path / "key", "sk-1\n")
    assert upstream(api_key_file=file).read_api_key() == "sk-1"


@pytest.mark.parametrize("content", ["", "\n", "one\ntwo", "säcret"])
def test_api_key_that_cannot_be_one_is_refused_without_being_shown(
    content: str, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="API key") as caught:
        upstream(api_key_file=file).read_api_key()
    assert not content.strip() or content.split("\n", maxsplit=1)[0] not in str(caught.value)


def test_missing_variable_of_an_api_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="MY_KEY"):
        upstream(api_key_env="MY_KEY").read_api_key()


def test_every_setting_has_a_sentence() -> None:
    for model in (Settings, UpstreamSettings):
        for name, field in model.model_fields.items():
            assert field.description, name
            assert field.description.endswith("."), name


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::1", "http://[::1]:8080"),
        ("example.com", "http://example.com:8080"),
    ],
)
def test_url_is_one_that_can_be_called(host: str, url: str) -> None:
    assert Settings(host=host).url == url
    assert Settings(host=host, public_url="https://ai.example.com/").url == "https://ai.example.com"
