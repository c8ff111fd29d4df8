"""The switch between the faces of the control plane: which application has a path.

Owns matching by whole segments, so that two faces can share a beginning. Must not know any face.
"""

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send


class Switch:
    """Hands each request to the face whose prefix (as `b"/api/v1"`) its path has, else to one."""

    def __init__(self, faces: Mapping[bytes, ASGIApp], *, otherwise: ASGIApp) -> None:
        self._faces = faces
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path: bytes = scope.get("raw_path") or b""
        for prefix, face in self._faces.items():
            if path == prefix or path.startswith(prefix + b"/"):
                await face(scope, receive, send)
                return
        await self._otherwise(scope, receive, send)
