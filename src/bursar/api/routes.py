"""The registry: every route of the control API, and who may call it.

Owns the list. The application is built from it and from nothing else, so a route that is not here
does not exist, and none can be outside authentication by accident. The caller's kind is checked
twice: by the types of the functions below, and at each request.
"""

from typing import Final

from bursar.api import (
    accounts,
    audit,
    health,
    introspection,
    keys,
    ledger,
    projects,
    summaries,
    usage,
)
from bursar.api.keys import leaks, shapes
from bursar.api.limits import alerts, allowances, explain, plans, refusals
from bursar.api.metering import bills
from bursar.api.metering import events as metered
from bursar.api.people.routes import ROUTES as PEOPLE
from bursar.api.registry import Route, anybody, anybody_sends, inference, operator, provisioning
from bursar.api.tenants.routes import ROUTES as TENANTS
from bursar.core.people.roles import Action

_PAGE: Final = ("cursor", "limit")
_KEY: Final = "/v1/account/keys/{key_id}"
_PROJECTS: Final = "/v1/account/projects"
_PROJECT: Final = f"{_PROJECTS}/{{project_id}}"
_MEMBERS: Final = f"{_PROJECT}/members"
_LIMITS: Final = "/v1/account/limits"
_LIMIT: Final = ("scope", "resource", "window", "model")
_ACCOUNT: Final = "/v1/operator/accounts/{account_id}"
_PLAN: Final = "/v1/operator/plans/{plan_id}"

ROUTES: Final[tuple[Route, ...]] = (
    anybody("/healthz", health.show_life, health.HealthShape),
    anybody("/readyz", health.show_readiness, health.HealthShape),
    anybody("/metrics", health.show_metrics, None, text="text/plain"),
    anybody_sends("/v1/leaks", leaks.report, leaks.LeakShape, status=202, body=leaks.LeakFields),
    *PEOPLE,
    provisioning(
        "POST",
        "/v1/auth/introspect",
        introspection.ask,
        introspection.IntrospectionShape,
        body=introspection.TokenFields,
        action=Action.READ,
    ),
    provisioning("GET", "/v1/account", accounts.show, accounts.AccountShape),
    provisioning("GET", "/v1/account/balance", accounts.show_balance, accounts.BalanceShape),
    provisioning(
        "GET",
        "/v1/account/activity",
        usage.show_activity,
        usage.ActivityShape,
        query=("days", "fresh"),
    ),
    provisioning(
        "GET", "/v1/account/keys", keys.list_keys, shapes.KeyListShape, query=keys.FILTERS
    ),
    provisioning(
        "POST",
        "/v1/account/keys",
        keys.create,
        shapes.NewKeyShape,
        status=201,
        body=shapes.NewKeyFields,
        action=Action.OWN_KEYS,
    ),
    provisioning(
        "POST",
        "/v1/account/keys/bulk",
        keys.create_many,
        shapes.NewKeyListShape,
        status=201,
        body=shapes.NewKeyListFields,
        action=Action.OWN_KEYS,
    ),
    provisioning("GET", _KEY, keys.show, shapes.KeyShape),
    provisioning("PATCH", _KEY, keys.update, shapes.KeyShape, body=shapes.KeyFields),
    provisioning("DELETE", _KEY, keys.delete, None, status=204, action=Action.OWN_KEYS),
    provisioning(
        "POST",
        f"{_KEY}/rotate",
        keys.rotate,
        shapes.NewKeyShape,
        body=shapes.RotationFields,
        action=Action.OWN_KEYS,
    ),
    provisioning("GET", _PROJECTS, projects.list_projects, projects.ProjectListShape, query=_PAGE),
    provisioning(
        "POST",
        _PROJECTS,
        projects.create,
        projects.ProjectShape,
        status=201,
        body=projects.NewProjectFields,
        action=Action.PROJECTS,
    ),
    provisioning("GET", _PROJECT, projects.show, projects.ProjectViewShape),
    provisioning(
        "PATCH",
        _PROJECT,
        projects.update,
        projects.ProjectShape,
        body=projects.ProjectFields,
        action=Action.PROJECTS,
    ),
    provisioning("DELETE", _PROJECT, projects.delete, None, status=204, action=Action.PROJECTS),
    provisioning("GET", _MEMBERS, projects.list_members, projects.MemberListShape),
    provisioning(
        "POST",
        _MEMBERS,
        projects.add_member,
        projects.MemberListShape,
        body=projects.MemberFields,
        action=Action.PROJECTS,
    ),
    provisioning(
        "DELETE",
        f"{_MEMBERS}/{{user_id}}",
        projects.remove_member,
        None,
        status=204,
        action=Action.PROJECTS,
    ),
    provisioning(
        "GET",
        _LIMITS,
        allowances.list_limits,
        allowances.LimitListShape,
        query=("scope", "resource", "model", *_PAGE),
    ),
    provisioning(
        "PUT", _LIMITS, allowances.set_limit, allowances.LimitShape, body=allowances.LimitFields
    ),
    provisioning("DELETE", _LIMITS, allowances.remove_limit, None, status=204, query=_LIMIT),
    provisioning(
        "POST",
        "/v1/account/explain",
        explain.explain,
        explain.ExplanationShape,
        body=explain.ExplainFields,
        action=Action.READ,
    ),
    provisioning(
        "GET",
        f"{_LIMITS}/log",
        refusals.list_refusals,
        refusals.RefusalListShape,
        query=("key_id", "model", "from", "to", *_PAGE),
    ),
    provisioning(
        "GET", "/v1/account/alerts", alerts.list_alerts, alerts.AlertListShape, query=_PAGE
    ),
    provisioning(
        "GET",
        "/v1/account/transactions",
        ledger.list_transactions,
        ledger.TransactionListShape,
        query=_PAGE,
    ),
    provisioning("GET", "/v1/account/billing", bills.show, bills.BillShape, query=("month",)),
    provisioning(
        "GET",
        "/v1/account/usage/summary",
        summaries.show,
        summaries.SummaryShape,
        query=summaries.PARAMETERS,
    ),
    provisioning(
        "GET",
        "/v1/account/usage/events",
        usage.list_events,
        usage.EventListShape,
        query=("key_id", "model", "project_id", "label", "from", "to", *_PAGE),
        text="text/csv",
    ),
    provisioning(
        "POST",
        "/v1/meter/events",
        metered.record,
        metered.ReceiptShape,
        body=metered.EventListFields,
        most_bytes=metered.MOST_BYTES,
    ),
    provisioning(
        "GET",
        "/v1/account/audit",
        audit.list_own,
        audit.AuditListShape,
        query=audit.FILTERS,
        text="text/csv",
        action=Action.AUDIT,
    ),
    inference("GET", "/v1/key", keys.show_own, shapes.OwnKeyShape),
    operator(
        "GET",
        "/v1/operator/accounts",
        accounts.list_accounts,
        accounts.AccountListShape,
        query=_PAGE,
    ),
    operator(
        "POST",
        "/v1/operator/accounts",
        accounts.create,
        accounts.AccountShape,
        status=201,
        body=accounts.NewAccount,
    ),
    operator("GET", _ACCOUNT, accounts.show_any, accounts.AccountShape),
    operator(
        "PATCH", _ACCOUNT, accounts.update, accounts.AccountShape, body=accounts.AccountFields
    ),
    *TENANTS,
    operator("POST", f"{_ACCOUNT}/suspend", accounts.suspend, accounts.AccountShape),
    operator("POST", f"{_ACCOUNT}/resume", accounts.resume, accounts.AccountShape),
    operator("POST", f"{_ACCOUNT}/cancel", accounts.cancel, accounts.AccountShape),
    operator(
        "POST",
        f"{_ACCOUNT}/credit",
        ledger.grant,
        ledger.PostingShape,
        status=201,
        body=ledger.Grant,
    ),
    operator(
        "POST",
        f"{_ACCOUNT}/corrections",
        ledger.correct,
        ledger.PostingShape,
        status=201,
        body=ledger.Correction,
    ),
    operator(
        "POST",
        f"{_ACCOUNT}/keys",
        keys.create_any,
        shapes.NewKeyShape,
        status=201,
        body=shapes.AnyNewKeyFields,
    ),
    operator(
        "GET",
        "/v1/operator/audit",
        audit.list_any,
        audit.AuditListShape,
        query=("account_id", *audit.FILTERS),
    ),
    operator(
        "POST",
        "/v1/operator/introspect",
        introspection.ask_any,
        introspection.IntrospectionShape,
        body=introspection.TokenFields,
    ),
    operator("GET", "/v1/operator/plans", plans.list_plans, plans.PlanListShape, query=_PAGE),
    operator(
        "POST",
        "/v1/operator/plans",
        plans.create,
        plans.PlanShape,
        status=201,
        body=plans.PlanFields,
    ),
    operator("GET", _PLAN, plans.show, plans.PlanShape),
    operator("PATCH", _PLAN, plans.rename, plans.PlanShape, body=plans.PlanFields),
    operator("DELETE", _PLAN, plans.delete, None, status=204),
    operator(
        "PUT", f"{_PLAN}/limits", plans.set_limit, plans.PlanShape, body=plans.PlanLimitFields
    ),
    operator("DELETE", f"{_PLAN}/limits", plans.remove_limit, None, status=204, query=_LIMIT),
)
