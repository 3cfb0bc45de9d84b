import type { Metadata, ServerUnaryCall, ServerWritableStream } from '@grpc/grpc-js';
import { Controller, Module } from '@nestjs/common';
import { GrpcMethod } from '@nestjs/microservices';
import { principalOf } from '@portcullis/guard';
import { interval, map, type Observable } from 'rxjs';

/** How often a watcher is greeted, in milliseconds. */
const GREETING_INTERVAL_MS = 100;

export interface SayHelloRequest {
  readonly name: string;
}

export interface Greeting {
  readonly text: string;
}

@Controller()
export class GreeterController {
  @GrpcMethod('GreeterService', 'SayHello')
  sayHello(
    { name }: SayHelloRequest,
    _metadata: Metadata,
    call: ServerUnaryCall<unknown, Greeting>,
  ): Greeting {
    return { text: `Hello ${name}, you are ${principalOf(call).id}.` };
  }

  @GrpcMethod('GreeterService', 'WatchGreetings')
  watchGreetings(
    _request: unknown,
    _metadata: Metadata,
    _call: ServerWritableStream<unknown, Greeting>,
  ): Observable<Greeting> {
    return interval(GREETING_INTERVAL_MS).pipe(map((count) => ({ text: `Hello for the ${count}th time.` })));
  }
}

@Module({ controllers: [GreeterController] })
export class GreeterModule {}
