/** The log of calls that failed by a fault of the server. */

import { status } from '@grpc/grpc-js';
import type { EndedCall } from '@portcullis/guard/metrics';
import type { Log } from './log.js';
import { parseTraceparent } from './trace.js';

const SERVER_FAULTS: ReadonlySet<status> = new Set([status.INTERNAL, status.UNKNOWN, status.DATA_LOSS]);

/** Logs calls that have ended, with the caller's trace: our own faults as warnings, the others for debugging. */
export function createCallLog(log: Log): (call: EndedCall) => void {
  return ({ path, code, seconds, metadata }) => {
    const level = SERVER_FAULTS.has(code) ? 'warn' : 'debug';
    if (!log.isLevelEnabled(level)) return;
    const trace = parseTraceparent(metadata?.get('traceparent')[0]);
    log[level]({ method: path, code: status[code], seconds, ...trace }, 'call ended');
  };
}
