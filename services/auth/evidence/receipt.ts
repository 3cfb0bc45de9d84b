/** The receipt of a revocation: what was revoked by whom, and when which instance enforced it. docs/spec/receipt-v1.md. */

/** The version of the format. */
const RECEIPT_VERSION = 1;

/** A revocation as its receipt states it. All times are ISO 8601 in UTC, by the clock of auth's database. */
export interface ReceiptedRevocation {
  /** Base64url. */
  readonly epoch: string;
  /** Decimal. */
  readonly sequence: string;
  readonly kind: string;
  readonly target: string;
  /** The user whose tokens were revoked, or whose session ended; absent for other kinds. */
  readonly user?: { readonly id: string; readonly name: string } | undefined;
  readonly issuer?: string | undefined;
  readonly claim?: string | undefined;
  readonly revoke_time: string;
  /** From then on no instance admits what was revoked, whatever fails. */
  readonly enforced_everywhere_by: string;
  readonly actor: string;
  /** The name of the user who revoked; absent for services and for auth itself. */
  readonly actor_name?: string | undefined;
  readonly network: string;
  readonly reason: string;
  readonly request_id?: string | undefined;
  readonly event_id?: string | undefined;
}

/** What is known of one instance for the revocations of a round. */
export interface InstanceEvidence {
  readonly service: string;
  /** Hexadecimal. */
  readonly instance: string;
  readonly host: string;
  readonly version: string;
  readonly left: boolean;
  /** When its last sync arrived; null after a crash of the database. */
  readonly sync_time: string | null;
  /** When its last lease ended or ends; null after a crash of the database. */
  readonly lease_end_time: string | null;
  /** At this time auth knew that the instance had the entry, or, with `up_to`, all entries up to it. */
  readonly positions: readonly {
    readonly sequence: string;
    readonly up_to: boolean;
    readonly known_time: string;
  }[];
}

/** The instances of a round. */
export interface RoundEvidence {
  readonly closeTime: Date;
  readonly instances: readonly InstanceEvidence[];
}

/** The payload of a receipt. */
export interface ReceiptDocument {
  readonly v: number;
  readonly iss: string;
  /** When the document was signed, in Unix seconds. */
  readonly iat: number;
  /** The evidence does not change any more. */
  readonly final: boolean;
  /** When the evidence was gathered. */
  readonly as_of: string;
  readonly revocation: ReceiptedRevocation;
  readonly instances: readonly ReceiptedInstance[];
}

interface ReceiptedInstance {
  readonly service: string;
  readonly instance: string;
  readonly host?: string | undefined;
  readonly version?: string | undefined;
  /**
   * `ENFORCED`: it stated that it had the entry. `SILENT`: it did not, and every lease under which it could admit what was
   * revoked is over. `PENDING`: it did not, and such a lease may run. A final receipt has no `PENDING`: whatever lease runs by
   * then began after the revocation, with a list that has the entry.
   */
  readonly state: 'ENFORCED' | 'SILENT' | 'PENDING';
  /** With `ENFORCED`: when auth first knew. The entry may have been there earlier, by the broadcast. */
  readonly enforced_time?: string | undefined;
  readonly last_sync_time?: string | undefined;
  readonly lease_end_time?: string | undefined;
  /** It stated that it had stopped serving. */
  readonly left?: true | undefined;
}

/** The receipt of a revocation out of the evidence of its round. */
export function receiptOf(
  revocation: ReceiptedRevocation,
  { closeTime, instances }: RoundEvidence,
  about: { readonly issuer: string; readonly final: boolean; readonly now: Date },
): ReceiptDocument {
  return {
    v: RECEIPT_VERSION,
    iss: about.issuer,
    iat: Math.floor(about.now.getTime() / 1000),
    final: about.final,
    as_of: closeTime.toISOString(),
    revocation,
    instances: instances.flatMap((evidence) =>
      receiptedInstance(revocation, evidence, closeTime, about.final),
    ),
  };
}

/** Empty for an instance that neither had the entry nor could admit calls after the revocation. */
function receiptedInstance(
  { sequence, revoke_time: revokeTime }: ReceiptedRevocation,
  evidence: InstanceEvidence,
  closeTime: Date,
  isFinal: boolean,
): ReceiptedInstance[] {
  const { service, instance, host, version, left, positions } = evidence;
  const place = BigInt(sequence);
  const times = positions
    .filter((known) => (known.up_to ? BigInt(known.sequence) >= place : BigInt(known.sequence) === place))
    .map((known) => known.known_time)
    .sort();
  const [enforcedTime] = times;
  const lastSeen = [evidence.sync_time, evidence.lease_end_time].filter((time) => time !== null);
  const isConcerned =
    lastSeen.length === 0 || lastSeen.some((time) => Date.parse(time) >= Date.parse(revokeTime));
  if (enforcedTime === undefined && !isConcerned) return [];
  // An unknown end, after a crash of the database, may be any until the bound has passed.
  const { lease_end_time: leaseEndTime } = evidence;
  const mayServe = !isFinal && (leaseEndTime === null || Date.parse(leaseEndTime) > closeTime.getTime());
  return [
    {
      service,
      instance,
      ...(host !== '' && { host }),
      ...(version !== '' && { version }),
      state: enforcedTime !== undefined ? 'ENFORCED' : mayServe ? 'PENDING' : 'SILENT',
      ...(enforcedTime !== undefined && { enforced_time: enforcedTime }),
      ...(evidence.sync_time !== null && { last_sync_time: evidence.sync_time }),
      ...(evidence.lease_end_time !== null && { lease_end_time: evidence.lease_end_time }),
      ...(left && { left }),
    },
  ];
}
