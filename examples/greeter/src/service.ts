import { setTimeout } from 'node:timers/promises';
import { principalOf, type ServiceHandlers, signalOf } from '@portcullis/guard';
import type { GreeterServiceService } from '../gen/greeter/v1/greeter.js';

/** How often a watcher is greeted, in milliseconds. */
const GREETING_INTERVAL_MS = 100;

export const handlers: ServiceHandlers<GreeterServiceService> = {
  sayHello: async ({ name }, call) => ({ text: `Hello ${name}, you are ${principalOf(call).id}.` }),
  async *watchGreetings(_request, call) {
    for (let count = 1; ; count += 1) {
      yield { text: `Hello for the ${count}th time.` };
      await setTimeout(GREETING_INTERVAL_MS, undefined, { signal: signalOf(call) });
    }
  },
};
