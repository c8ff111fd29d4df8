"""People, wired: the post, the vault and the slow hashes, from the settings."""

from bursar.adapters import mail, vault
from bursar.adapters.mail import Mailer
from bursar.adapters.passwords import PasswordPool, list_common
from bursar.config import Settings
from bursar.service.people.ports import People


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
        url=settings.url,
        common=list_common(),
    )
