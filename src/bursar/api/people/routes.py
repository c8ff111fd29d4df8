"""The routes of people: signing in, their own things, and the users of an account.

Owns their list. Must not know what a role allows; that is one table in `core.people.roles`.
"""

from typing import Final

from bursar.api.people import members, passkeys, profile, sign_in, sso
from bursar.api.registry import Route, anybody, anybody_sends, person, provisioning
from bursar.core.people.roles import Action

_PAGE: Final = ("cursor", "limit")
_USERS: Final = "/v1/account/users"
_ME: Final = f"{_USERS}/me"
_USER: Final = f"{_USERS}/{{user_id}}"
_INVITATIONS: Final = "/v1/account/invitations"
_FACTOR: Final = "/v1/auth/second-factor"
_PASSKEYS: Final = "/v1/auth/passkeys"
_SSO: Final = "/v1/auth/sso"
_IDENTITIES: Final = f"{_SSO}/identities"
_RESET: Final = "/v1/auth/password-reset"
_ACCEPT: Final = "/v1/auth/invitations/accept"

_SIGN_IN: Final[tuple[Route, ...]] = (
    anybody_sends(
        "/v1/auth/login",
        sign_in.start,
        sign_in.TokensShape,
        status=200,
        body=sign_in.SignInFields,
    ),
    anybody_sends(
        "/v1/auth/refresh",
        sign_in.refresh,
        sign_in.TokensShape,
        status=200,
        body=sign_in.RefreshFields,
    ),
    anybody_sends(
        "/v1/auth/revoke",
        sign_in.revoke,
        sign_in.RevocationShape,
        status=200,
        body=sign_in.RevocationFields,
    ),
    anybody_sends(
        _RESET, sign_in.request_reset, sign_in.ResetShape, status=202, body=sign_in.ResetFields
    ),
    anybody_sends(
        f"{_RESET}/confirm", sign_in.reset, None, status=204, body=sign_in.NewPasswordFields
    ),
    anybody_sends(
        _ACCEPT,
        sign_in.accept,
        sign_in.AcceptanceShape,
        status=201,
        body=sign_in.AcceptanceFields,
    ),
)

_OWN: Final[tuple[Route, ...]] = (
    person("POST", "/v1/auth/logout-all", profile.sign_out_everywhere, profile.SignOutShape),
    person("GET", "/v1/auth/sessions", profile.list_sessions, profile.SessionListShape),
    person("DELETE", "/v1/auth/sessions/{session_id}", profile.end_session, None, status=204),
    person(
        "POST",
        "/v1/auth/password",
        profile.change_password,
        None,
        status=204,
        body=profile.PasswordFields,
    ),
    person("GET", _FACTOR, profile.show_second_factor, profile.SecondFactorShape),
    person(
        "POST",
        _FACTOR,
        profile.begin_second_factor,
        profile.EnrolmentShape,
        status=201,
        body=profile.EnrolmentFields,
    ),
    person(
        "POST",
        f"{_FACTOR}/confirm",
        profile.confirm_second_factor,
        profile.RecoveryCodesShape,
        body=profile.CodeFields,
    ),
    person(
        "POST",
        f"{_FACTOR}/recovery-codes",
        profile.renew_recovery_codes,
        profile.RecoveryCodesShape,
        body=profile.ProofFields,
    ),
    person(
        "POST",
        f"{_FACTOR}/remove",
        profile.remove_second_factor,
        None,
        status=204,
        body=profile.ProofFields,
    ),
)

_PASSKEY_ROUTES: Final[tuple[Route, ...]] = (
    anybody_sends(
        f"{_PASSKEYS}/challenge",
        passkeys.ask,
        passkeys.PasskeyOptionsShape,
        status=200,
        body=passkeys.NothingFields,
    ),
    anybody_sends(
        f"{_PASSKEYS}/login",
        passkeys.start,
        sign_in.TokensShape,
        status=200,
        body=passkeys.PasskeySignInFields,
    ),
    person("GET", _PASSKEYS, passkeys.list_own, passkeys.PasskeyListShape),
    person(
        "POST",
        f"{_PASSKEYS}/options",
        passkeys.begin,
        passkeys.PasskeyOptionsShape,
        body=passkeys.AgainFields,
    ),
    person(
        "POST",
        _PASSKEYS,
        passkeys.finish,
        passkeys.NewPasskeyShape,
        status=201,
        body=passkeys.NewPasskeyFields,
    ),
    person(
        "PATCH",
        f"{_PASSKEYS}/{{passkey_id}}",
        passkeys.rename,
        passkeys.PasskeyShape,
        body=passkeys.PasskeyFields,
    ),
    person(
        "POST",
        f"{_PASSKEYS}/{{passkey_id}}/remove",
        passkeys.remove,
        None,
        status=204,
        body=passkeys.AgainFields,
    ),
)

_SSO_ROUTES: Final[tuple[Route, ...]] = (
    anybody(_SSO, sso.list_providers, sso.ProviderListShape),
    anybody_sends(f"{_SSO}/start", sso.start, sso.FlowShape, status=200, body=sso.FlowFields),
    anybody_sends(
        f"{_SSO}/finish",
        sso.finish,
        sign_in.TokensShape,
        status=200,
        body=sso.SsoSignInFields,
    ),
    person("GET", _IDENTITIES, sso.list_own, sso.IdentityListShape),
    person(
        "POST",
        f"{_IDENTITIES}/start",
        sso.start_link,
        sso.FlowShape,
        body=sso.LinkFlowFields,
    ),
    person(
        "POST",
        _IDENTITIES,
        sso.link,
        sso.IdentityShape,
        status=201,
        body=sso.ReturnFields,
    ),
    person(
        "POST",
        f"{_IDENTITIES}/{{identity_id}}/remove",
        sso.unlink,
        None,
        status=204,
        body=passkeys.AgainFields,
    ),
)

_USERS_ROUTES: Final[tuple[Route, ...]] = (
    # In front of those with an id: paths match in this order.
    provisioning("GET", _ME, members.show_self, members.UserShape),
    provisioning(
        "PATCH",
        _ME,
        members.update_self,
        members.UserShape,
        body=members.OwnFields,
        action=Action.OWN_PROFILE,
    ),
    provisioning("DELETE", _ME, members.leave, None, status=204, action=Action.OWN_PROFILE),
    provisioning("GET", _USERS, members.list_users, members.UserListShape, query=_PAGE),
    provisioning(
        "POST",
        _USERS,
        members.invite,
        members.InvitationShape,
        status=202,
        body=members.InvitationFields,
        action=Action.PEOPLE,
    ),
    provisioning("GET", _USER, members.show, members.UserShape),
    provisioning(
        "PATCH",
        _USER,
        members.update,
        members.UserShape,
        body=members.UserFields,
        action=Action.PEOPLE,
    ),
    provisioning("DELETE", _USER, members.remove, None, status=204, action=Action.PEOPLE),
    provisioning(
        "GET",
        _INVITATIONS,
        members.list_invitations,
        members.InvitationListShape,
        action=Action.PEOPLE,
    ),
    provisioning(
        "DELETE",
        f"{_INVITATIONS}/{{invitation_id}}",
        members.withdraw,
        None,
        status=204,
        action=Action.PEOPLE,
    ),
)

ROUTES: Final[tuple[Route, ...]] = (
    *_SIGN_IN,
    *_OWN,
    *_PASSKEY_ROUTES,
    *_SSO_ROUTES,
    *_USERS_ROUTES,
)
