"""The control API keeps its OpenAPI document, whatever is sent to it; nothing makes it fail.

Requests are generated from the document and sent to a served installation. What a schema cannot
say (a name that shows nothing, an expiry in the past) may be refused although it fits the schema.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import positive_data_acceptance

from bursar.api.routes import ROUTES
from tests.serving import House, serving


@pytest.fixture
async def house(sqlite_database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    async with serving(sqlite_database_url, tmp_path) as served:
        yield served


# Every route is tried, and there are many: a busy machine is not a failing document.
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("kind", ["operator", "provisioning", "inference"])
async def test_generated_requests_are_answered_as_described(
    house: House, kind: str, mode: GenerationMode
) -> None:
    secret = getattr(house.installation, f"{kind}_key")
    tried = await asyncio.to_thread(send_generated, house.url, secret, kind, mode)
    assert tried == len(ROUTES)
    response = await house.http.get("/readyz")
    assert response.status_code == 200


def send_generated(url: str, secret: str, kind: str, mode: GenerationMode) -> int:
    """Send what fits the document, or what does not; how many operations were tried."""
    load_all_checks()
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    principals = {(route.method, route.path): route.principal for route in ROUTES}
    tried = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        principal = principals[operation.method.upper(), operation.path]
        # A key of another kind gets no further than that, whatever is sent with it.
        is_own = principal is None or getattr(principal, "kind", None) == kind
        try_operation(operation, mode, secret, examples=8 if is_own else 1)
        tried += 1
    return tried


def try_operation(operation: Any, mode: GenerationMode, secret: str, *, examples: int) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
    def check(case: schemathesis.Case) -> None:
        case.headers.pop("authorization", None)
        case.headers.pop("x-api-key", None)
        case.call_and_validate(
            headers={"x-api-key": secret}, excluded_checks=[positive_data_acceptance]
        )

    try:
        check()
    except Unsatisfiable:
        # An operation without parameters and body has no request that does not fit.
        assert mode is GenerationMode.NEGATIVE
