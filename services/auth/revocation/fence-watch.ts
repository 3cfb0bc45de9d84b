/** The rules of fences: what a service reports of them, and whether they are at or beyond an entry. Without I/O. */

import { invalidField } from '@portcullis/guard/errors';
import { ID_BYTES } from '@portcullis/guard/limits';

/** Maximum number of fences of one service in a report, and of names in a request. */
const FENCES_MAX = 16;

/** A place in the logs of all epochs. */
interface FencePlace {
  readonly epochNumber: bigint;
  readonly sequence: bigint;
}

/** Where the fence of a service's database stood after a commit that the database had confirmed. */
export interface FencePosition extends FencePlace {
  /** Tells apart the databases of a service; empty for the only one. */
  readonly database: string;
  readonly fenceId: Buffer;
}

/** A fence as its service has reported it. */
export interface ReportedFence extends FencePosition {
  /** The client id of the service. */
  readonly service: string;
}

/** Whether a fence is at or beyond an entry. */
type FenceState = 'FENCED' | 'PENDING' | 'UNKNOWN';

/** What is known of a revocation at one fence. */
export interface FenceReceipt {
  readonly name: string;
  readonly state: FenceState;
  /** From the commit until auth knew of the fence, in milliseconds; 0 unless FENCED. */
  readonly milliseconds: number;
}

/**
 * The state of a name. Databases of one name, such as two deployments of one client, count only together: a fence in one
 * of them stops nothing in the other.
 *
 * @param fences - all reported fences of the name
 */
export function fenceStateOf(entry: FencePlace, fences: readonly FencePlace[]): FenceState {
  if (fences.length === 0) return 'UNKNOWN';
  return fences.every((fence) => isAtOrBeyond(fence, entry)) ? 'FENCED' : 'PENDING';
}

/** A later epoch is beyond every entry of an earlier one: no instance of the earlier epoch passes its fence. */
export function isAtOrBeyond(fence: FencePlace, entry: FencePlace): boolean {
  if (fence.epochNumber !== entry.epochNumber) return fence.epochNumber > entry.epochNumber;
  return fence.sequence >= entry.sequence;
}

/** The name by which a request names a fence. */
export function nameOfFence({ service, database }: Pick<ReportedFence, 'service' | 'database'>): string {
  return database === '' ? service : `${service}/${database}`;
}

/** The service of a name. A client id contains no slash. */
export function serviceOfName(name: string): string {
  return name.split('/', 1)[0] ?? name;
}

/**
 * Checks the names of a request.
 *
 * @throws ServiceError FIELD_INVALID
 */
export function checkFenceNames(isWaitedFor: boolean, names: readonly string[]): void {
  if (isWaitedFor ? names.length === 0 : names.length > 0) {
    throw invalidField('fences', 'must be set when wait is FENCED, and only then');
  }
  if (names.length > FENCES_MAX || new Set(names).size < names.length || !names.every(isName)) {
    throw invalidField('fences', `must hold at most ${FENCES_MAX} different names of services or databases`);
  }
}

/**
 * Checks what a sync request reports.
 *
 * @throws ServiceError FIELD_INVALID
 */
export function checkFences(fences: readonly FencePosition[]): void {
  const isGood = fences.every(
    ({ database, fenceId, epochNumber, sequence }) =>
      DATABASE.test(database) && fenceId.length === ID_BYTES && isBigint(epochNumber) && isBigint(sequence),
  );
  if (fences.length > FENCES_MAX || !isGood) {
    throw invalidField(
      'fences',
      `must hold at most ${FENCES_MAX} positions, each with the name of a database`,
    );
  }
}

/** The name of a database: printable ASCII without spaces and slashes, or nothing. */
const DATABASE = /^[!-.0-~]{0,50}$/;

function isName(name: string): boolean {
  return /^[!-~]{1,151}$/.test(name);
}

function isBigint(value: bigint): boolean {
  return value >= 0n && value < 2n ** 63n;
}
