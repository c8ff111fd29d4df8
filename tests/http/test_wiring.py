"""What is set reaches the part that it is for."""

from __future__ import annotations

from pathlib import Path

from tests.serving import serving


async def test_the_control_api_takes_bodies_as_large_as_is_set(
    sqlite_database_url: str, tmp_path: Path
) -> None:
    settings = {"max_control_body_bytes": 2_000}
    async with serving(sqlite_database_url, tmp_path, settings=settings) as house:
        for size, status in ((2_000, 201), (2_001, 413)):
            body = b'{"name": "x"}'.ljust(size)
            headers = {
                "authorization": f"Bearer {house.installation.provisioning_key}",
                "content-type": "application/json",
            }
            answer = await house.http.post("/v1/account/keys", content=body, headers=headers)
            assert answer.status_code == status, answer.text
