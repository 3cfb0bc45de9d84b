import { Metadata } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import type { GreeterServiceClient } from '../gen/greeter/v1/greeter.js';

/** Deadline of a call, in milliseconds. */
const CALL_MS_MAX = 5_000;

/** Greets everybody, one after the other. A refusal is reported by its reason, never by its message. */
export async function greetAll(greeter: GreeterServiceClient, names: readonly string[]): Promise<string[]> {
  const texts: string[] = [];
  for (const name of names) texts.push(await greet(greeter, name));
  return texts;
}

function greet(greeter: GreeterServiceClient, name: string): Promise<string> {
  return new Promise((resolve) => {
    const deadline = Date.now() + CALL_MS_MAX;
    greeter.sayHello({ name }, new Metadata(), { deadline }, (error, response) => {
      resolve(error === null ? response.text : `refused: ${errorOf(error).reason}`);
    });
  });
}
