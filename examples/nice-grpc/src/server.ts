import { readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { currentCall, descriptorRules, type Guard, principalOf } from '@portcullis/guard';
import { createServer, type Server } from 'nice-grpc';
import { GreeterServiceDefinition, type GreeterServiceImplementation } from '../gen/greeter/v1/greeter.js';

/** How often a watcher is greeted, in milliseconds. */
const GREETING_INTERVAL_MS = 100;

const greeter: GreeterServiceImplementation = {
  async sayHello({ name }) {
    return { text: `Hello ${name}, you are ${principalOf(currentCall()).id}.` };
  },
  async *watchGreetings(_request, { signal }) {
    for (let count = 1; ; count += 1) {
      yield { text: `Hello for the ${count}th time.` };
      await setTimeout(GREETING_INTERVAL_MS, undefined, { signal });
    }
  },
};

/** The guard was created with `callContext: true`, so that handlers find their caller. */
export function createGreeter(guard: Guard): Server {
  guard.protect(descriptorRules(readFileSync('gen/greeter.binpb')));
  const server = createServer({ interceptors: [guard.interceptor] });
  server.add(GreeterServiceDefinition, greeter);
  return server;
}
