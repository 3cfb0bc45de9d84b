/**
 * Lets the services reach the size that they have under load. V8 touches the memory of its young generation for the first
 * time as calls fill it; without calls before the flood, some 30 MB of that would count as what the flood makes a service
 * hold.
 */

import { createPeer, EMPTY_MESSAGE, headersOf } from '../shared/wire.js';

const HEALTH_CHECK = '/grpc.health.v1.Health/Check';
/** So many calls of any method fill a young generation of 32 MiB more than twice. */
const CALLS_PER_SERVICE = 8_000;
/** Below what one address may have in progress. */
const CALLS_AT_ONCE = 40;

/** Calls every service until its young generation has been full, and collected, at its largest size. */
export async function fillYoungGenerations(addresses: readonly string[], signal: AbortSignal): Promise<void> {
  await Promise.all(addresses.map((address) => callOften(address, signal)));
}

async function callOften(address: string, signal: AbortSignal): Promise<void> {
  const peer = createPeer(address);
  const request = { block: headersOf(HEALTH_CHECK), body: EMPTY_MESSAGE };
  let left = CALLS_PER_SERVICE;
  const callInTurn = async (): Promise<void> => {
    for (; left > 0 && !signal.aborted; left -= 1) await peer.send(request);
  };
  await Promise.all(Array.from({ length: CALLS_AT_ONCE }, callInTurn));
  peer.close();
  signal.throwIfAborted();
}
