"""What streams in: commits, and large files under signed addresses."""

from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response

from hub.local.calls import Call, answer
from hub.local.commits import Applied, CommitReader, apply_commit, propose_commit
from hub.local.lfs import Pointer, checked_oid, checked_size
from hub.local.names import RepoName
from hub.local.objects import ObjectBatch
from hub.local.refusal import Refusal
from hub.local.revisions import branch_head
from hub.local.serving import serve
from hub.local.threads import in_thread

_PIECE = 1 << 20
_LFS_TYPE = "application/vnd.git-lfs+json"


async def commit(call: Call, name: RepoName, branch: str) -> Response:
    """POST commit/R."""
    repository = await in_thread(call.repository, name, True)
    account = call.check_write(name.namespace)
    put_on = propose_commit if call.flag("create_pr") else apply_commit
    await in_thread(branch_head, repository.git, branch)
    with ObjectBatch(repository.path) as batch:
        reader = CommitReader(name, batch, repository.lfs, call.hub.limits)
        async for piece in _pieces(call):
            await in_thread(reader.feed, b"".join(piece))

        def put() -> Applied:
            with call.hub.repositories.writing(name) as held:
                return put_on(held, branch, reader, account)

        applied = await in_thread(put)
    home = f"{call.base}/{name.prefix}{name.id}"
    return answer(
        {
            "success": True,
            "commitOid": applied.oid,
            "commitUrl": f"{home}/commit/{applied.oid}",
            "pullRequestUrl": f"{home}/discussions/{applied.proposal}" if applied.proposal else None,
            "hookOutput": "",
        }
    )


async def _pieces(call: Call) -> AsyncIterator[list[bytes]]:
    """The body in larger pieces than the network brings, to change threads less often."""
    piece: list[bytes] = []
    size = 0
    async for chunk in call.chunks():
        piece.append(chunk)
        size += len(chunk)
        if size >= _PIECE:
            yield piece
            piece, size = [], 0
    yield piece


def lfs_batch(call: Call, name: RepoName) -> Response:
    """POST info/lfs/objects/batch: addresses for the objects that are to be sent or fetched."""
    body = call.json()
    operation, objects = body.get("operation"), body.get("objects")
    if operation not in ("upload", "download") or not isinstance(objects, list):
        raise Refusal(422, "Invalid LFS batch: expected operation upload or download, and objects")
    transfers = body.get("transfers") or ["basic"]
    if "basic" not in transfers or body.get("hash_algo", "sha256") != "sha256":
        raise Refusal(422, "This Hub knows the transfer basic and the hash sha256")
    call.repository(name, write=operation == "upload")
    row = _upload_row if operation == "upload" else _download_row
    rows = [row(call, name, each) for each in objects]
    return answer(
        {"transfer": "basic", "objects": rows, "hash_algo": "sha256"}, headers={"Content-Type": _LFS_TYPE}
    )


def _pointer(call: Call, value: object) -> Pointer:
    if not isinstance(value, dict):
        raise Refusal(422, "Invalid LFS batch: expected objects of oid and size")
    return Pointer(checked_oid(value.get("oid")), checked_size(value.get("size"), call.hub.limits.lfs_bytes))


def _upload_row(call: Call, name: RepoName, value: object) -> dict[str, Any]:
    pointer = _pointer(call, value)
    row: dict[str, Any] = {"oid": pointer.oid, "size": pointer.size}
    stored = call.repository(name).lfs.size(pointer.oid)
    if stored is not None and stored != pointer.size:
        row["error"] = {"code": 422, "message": f"the stored object has {stored} bytes, not {pointer.size}"}
    elif stored is None:
        href = call.base + call.hub.signer.address("PUT", name, pointer.oid, pointer.size)
        row["actions"] = {"upload": {"href": href}}
    return row


def _download_row(call: Call, name: RepoName, value: object) -> dict[str, Any]:
    pointer = _pointer(call, value)
    row: dict[str, Any] = {"oid": pointer.oid, "size": pointer.size, "authenticated": True}
    if call.repository(name).lfs.size(pointer.oid) != pointer.size:
        row["error"] = {"code": 404, "message": "Object does not exist"}
    else:
        href = call.base + call.hub.signer.address("GET", name, pointer.oid, pointer.size)
        row["actions"] = {"download": {"href": href}}
    return row


async def receive_object(call: Call, name: RepoName, oid: str) -> Response:
    """PUT of a large file to its signed address; neither account nor token is asked for."""
    pointer = Pointer(checked_oid(oid), _signed_size(call, "PUT", name, oid))
    announced = call.request.headers.get("content-length")
    if announced is not None and announced != str(pointer.size):
        raise Refusal(400, f"Wrong size: {announced} bytes announced, {pointer.size} were agreed")
    repository = await in_thread(call.hub.repositories.open, name)
    incoming = await in_thread(repository.lfs.receive, pointer)
    try:
        async for piece in _pieces(call):
            await in_thread(incoming.write, piece)
        await in_thread(incoming.finish)
    finally:
        incoming.close()
    return Response(status_code=200, headers={"ETag": f'"{oid}"'})


def send_object(call: Call, name: RepoName, oid: str) -> Response:
    """GET of a large file from its signed address, as git-lfs does."""
    size = _signed_size(call, "GET", name, oid)
    path = call.hub.repositories.open(name).lfs.path(checked_oid(oid))
    if not path.is_file() or path.stat().st_size != size:
        raise Refusal(404, "Object does not exist", "EntryNotFound")
    return serve(call.request, path, oid, {"Content-Type": "application/octet-stream"})


def _signed_size(call: Call, method: str, name: RepoName, oid: str) -> int:
    return call.hub.signer.check(method, name, oid, dict(call.request.query_params))
