"""An unguarded gRPC server. It reads who calls from the headers that the gate adds (docs/gate.md)."""

import os
import signal
import sys
import time
from concurrent import futures

import grpc
from grpc_reflection.v1alpha import reflection

from greeter.v1 import greeter_pb2, greeter_pb2_grpc

PAUSE_SECONDS = 0.2


def caller(context):
    headers = dict(context.invocation_metadata())
    return headers.get("x-portcullis-id", "nobody")


class Greeter(greeter_pb2_grpc.GreeterServiceServicer):
    def SayHello(self, request, context):
        return greeter_pb2.SayHelloResponse(text=f"Hello, {request.name}, says {caller(context)}")

    def WatchGreetings(self, request, context):
        while context.is_active():
            yield greeter_pb2.WatchGreetingsResponse(text=f"Hello, {caller(context)}")
            time.sleep(PAUSE_SECONDS)


def main():
    path = sys.argv[1]
    if os.path.exists(path):
        os.remove(path)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    greeter_pb2_grpc.add_GreeterServiceServicer_to_server(Greeter(), server)
    services = (greeter_pb2.DESCRIPTOR.services_by_name["GreeterService"].full_name, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(services, server)
    server.add_insecure_port(f"unix:{path}")
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=5))
    server.wait_for_termination()


main()
