"""Calls of grpcio (the C core) through a gate: what it receives is printed as JSON, one line for each call."""

import json
import sys

import grpc

TARGET, TOKEN = sys.argv[1], sys.argv[2]
PATH = "/interop.v1.EchoService/"
channel = grpc.insecure_channel(
    TARGET, options=(("grpc.max_receive_message_length", 32 << 20), ("grpc.max_send_message_length", 32 << 20)))
credential = (("authorization", "Bearer " + TOKEN),)


def outcome(name, work):
    try:
        print(json.dumps({"call": name, "result": work()}), flush=True)
    except grpc.RpcError as error:
        trailing = {key: value for key, value in error.trailing_metadata() or ()}
        details = trailing.get("grpc-status-details-bin", b"")
        print(json.dumps({"call": name, "code": error.code().name, "message": error.details(),
                          "details": details.hex()}), flush=True)


def unary(method, request, metadata=credential, **options):
    return channel.unary_unary(PATH + method)(request, metadata=metadata, timeout=20, **options)


outcome("unary", lambda: unary("Unary", b"hello").decode())
outcome("large", lambda: len(unary("Unary", b"x" * (3 << 20))))
outcome("gzip", lambda: unary("Compressed", b"y" * 10000, compression=grpc.Compression.Gzip).decode() == "y" * 10000)
outcome("missing", lambda: unary("Unary", b"hello", metadata=()).decode())
outcome("bad", lambda: unary("Unary", b"hello", metadata=(("authorization", "Bearer x"),)).decode())
outcome("fail", lambda: unary("Fail", b""))
outcome("server stream", lambda: len(list(
    channel.unary_stream(PATH + "ServerStream")(b"100", metadata=credential, timeout=20))))
outcome("client stream", lambda: channel.stream_unary(PATH + "ClientStream")(
    iter([b"abc"] * 100), metadata=credential, timeout=20).decode())
outcome("bidi", lambda: b"".join(channel.stream_stream(PATH + "Bidi")(
    iter([b"ab"] * 100), metadata=credential, timeout=20)).decode() == "ab" * 100)


def until_cut():
    stream = channel.unary_stream(PATH + "ServerStream")(b"0", metadata=credential, timeout=60)
    for count, _ in enumerate(stream):
        if count == 0:
            print(json.dumps({"call": "stream begun"}), flush=True)
    return "ended"


outcome("revoked stream", until_cut)
channel.close()
