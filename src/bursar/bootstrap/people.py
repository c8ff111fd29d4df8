"""People, wired: the post, the vault and the slow hashes, from the settings."""

from urllib.parse import urlsplit

from bursar.adapters import mail, vault
from bursar.adapters.mail import Mailer
from bursar.adapters.oidc import Client, Service
from bursar.adapters.passkeys import RelyingParty
from bursar.adapters.passwords import PasswordPool, list_common
from bursar.config import ProviderSettings, Settings
from bursar.core.people.roles import Role
from bursar.service.people.ports import People
from bursar.service.sso.ports import Grant, Provider


def make_people(
    settings: Settings, *, without_server: Mailer | None = None
) -> tuple[mail.Post, People]:
    """Return the post and what the use cases of people work with.

    Without a mail server letters go to `without_server`, by default to the log.
    """
    password = settings.mail_password
    mailer = mail.find_mailer(
        host=settings.mail_host,
        port=settings.mail_port,
        sender=settings.mail_from,
        security=settings.mail_security,
        user=settings.mail_user,
        password=password.get_secret_value() if password else None,
    )
    if settings.mail_host is None and without_server is not None:
        mailer = without_server
    post = mail.Post(mailer)
    return post, People(
        vault=vault.load(settings.secret_key_path),
        passwords=PasswordPool(settings.password_threads),
        post=post.put,
        has_room=post.has_room,
        url=settings.url,
        common=list_common(),
        party=_party(settings),
        providers={each.name: _provider(each) for each in settings.sso_providers},
    )


def _provider(settings: ProviderSettings) -> Provider:
    client = Client(
        issuer=settings.issuer,
        client_id=settings.client_id,
        client_secret=settings.read_client_secret(),
        scopes=settings.scopes,
        groups_claim=settings.groups_claim,
        is_internal=settings.is_internal,
    )
    return Provider(
        name=settings.name,
        title=settings.title or settings.name,
        issuer=settings.issuer,
        service=Service(client),
        domains=frozenset(settings.domains),
        redirect_urls=frozenset(settings.redirect_urls),
        grants=tuple(
            Grant(each.account_id, each.group, Role(each.role)) for each in settings.roles
        ),
        creates_people=settings.creates_people,
        counts_as_two=settings.counts_as_two,
    )


def _party(settings: Settings) -> RelyingParty:
    """Whom passkeys are for. An address has none of its own, but this machine's has a name."""
    parts = urlsplit(settings.url)
    is_here = parts.hostname in {"127.0.0.1", "::1"}
    host = "localhost" if is_here else parts.hostname or ""
    port = "" if parts.port is None else f":{parts.port}"
    origins = settings.passkey_origins or (f"{parts.scheme}://{host}{port}",)
    return RelyingParty(id=settings.passkey_domain or host, name="Bursar", origins=origins)
