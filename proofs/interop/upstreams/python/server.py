"""An unguarded gRPC server in Python (grpcio), with one method for each thing that a gate could spoil, and the echo of the drill.

Its messages are bytes as they are, so that it needs no generated code. It prints its port, or serves a unix socket.
"""

import json
import sys
import time
from concurrent import futures

import grpc

SERVICE = "interop.v1.EchoService"
DRILL_SERVICE = "drill.v1.EchoService"
DRILL_TICK_SECONDS = 0.1
# Each open stream occupies one.
THREADS = 256
DETAILS = bytes.fromhex(sys.argv[2]) if len(sys.argv) > 2 else b""
cancelled_count = 0


def unary(request, context):
    context.send_initial_metadata((("x-initial", "one"), ("x-initial", "two"), ("x-initial-bin", b"\x00\xff")))
    context.set_trailing_metadata((("x-trailing", "three"),))
    return request


def metadata_of(request, context):
    received = [[key, value.hex() if isinstance(value, bytes) else value]
                for key, value in context.invocation_metadata() if key.startswith("x-") or key == "authorization"]
    return json.dumps(sorted(received)).encode()


def fail(request, context):
    context.set_trailing_metadata((("x-trailing", "three"), ("grpc-status-details-bin", DETAILS)))
    context.abort(grpc.StatusCode.ABORTED, "refused by hand: 100 % ä")


def deadline(request, context):
    remaining = context.time_remaining()
    return b"none" if remaining is None or remaining > 1e6 else str(round(remaining)).encode()


def server_stream(request, context):
    """Sends as many messages as asked; without end when asked for none, and counts its cancellation."""
    count = int(request or b"0")
    if count == 0:
        context.add_callback(count_cancellation)
    sent = 0
    while context.is_active() and (count == 0 or sent < count):
        yield b"message %d" % sent
        sent += 1
        if count == 0:
            time.sleep(0.01)
    context.set_trailing_metadata((("x-sent", str(sent)),))


def count_cancellation():
    global cancelled_count
    cancelled_count += 1


def cancellations(request, context):
    return str(cancelled_count).encode()


def client_stream(requests, context):
    received = list(requests)
    return b"%d messages, %d bytes" % (len(received), sum(map(len, received)))


def bidi(requests, context):
    yield from requests


def compressed(request, context):
    context.set_compression(grpc.Compression.Gzip)
    return request


# The last timestamp that each client stream of the drill has brought, by its name.
witnesses = {}


def drill_client_stream(requests, context):
    name, count = None, 0
    for request in requests:
        count += 1
        if name is None:
            name = request.decode()
        else:
            witnesses[name] = float(request)
    return str(count).encode()


def drill_server_stream(request, context):
    """Sends the time of the clock that all processes of a machine share."""
    while context.is_active():
        yield str(time.monotonic() * 1000).encode()
        time.sleep(DRILL_TICK_SECONDS)


def drill_witness(request, context):
    told = json.dumps(dict(witnesses))
    witnesses.clear()
    return told.encode()


class Handler(grpc.GenericRpcHandler):
    def __init__(self):
        self.drill_methods = {
            "Unary": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
            "ClientStream": grpc.stream_unary_rpc_method_handler(drill_client_stream),
            "ServerStream": grpc.unary_stream_rpc_method_handler(drill_server_stream),
            "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
            "Witness": grpc.unary_unary_rpc_method_handler(drill_witness),
        }
        self.methods = {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Public": grpc.unary_unary_rpc_method_handler(unary),
            "Metadata": grpc.unary_unary_rpc_method_handler(metadata_of),
            "Fail": grpc.unary_unary_rpc_method_handler(fail),
            "Deadline": grpc.unary_unary_rpc_method_handler(deadline),
            "Cancellations": grpc.unary_unary_rpc_method_handler(cancellations),
            "Compressed": grpc.unary_unary_rpc_method_handler(compressed),
            "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
            "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
            "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
        }

    def service(self, details):
        _, service, method = details.method.split("/")
        if service == DRILL_SERVICE:
            return self.drill_methods.get(method)
        return self.methods.get(method) if service == SERVICE else None


def main():
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=THREADS),
        options=(("grpc.max_receive_message_length", 32 << 20), ("grpc.max_send_message_length", 32 << 20)),
    )
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port(sys.argv[1])
    server.start()
    print(json.dumps({"port": port, "version": grpc.__version__}), flush=True)
    # Ends with its parent.
    sys.stdin.read()
    server.stop(0)


main()
