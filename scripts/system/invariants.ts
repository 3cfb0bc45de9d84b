/**
 * The invariants of a running system: the `invariants` views of the two databases, and the agreement of goods and
 * money, which only both databases together show.
 */

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { SystemError } from './system-error.js';

const CONNECT_TIMEOUT_MS = 5_000;
/** A checkout whose payment process died stays open until that process is back. */
const STATEMENT_TIMEOUT_MS = 300_000;

/** One invariant, and the number of rows that violate it. */
export interface InvariantReading {
  readonly about: 'inventory' | 'payment' | 'both';
  readonly invariant: string;
  readonly breaches: number;
  /** The id of one violating row; `undefined` when there is none. */
  readonly example: string | undefined;
}

/** Connection strings of roles that may read everything. */
export interface DatabaseUrls {
  readonly inventory: string;
  readonly payment: string;
}

export interface InvariantReader {
  /** Reads all invariants. Those of one database are read in one snapshot; those of both tolerate open checkouts. */
  read(): Promise<readonly InvariantReading[]>;
  close(): Promise<void>;
}

/** The file in which a start records its databases. Their passwords are in the data folder already. */
const databasesFile = (dataDir: string): string => join(dataDir, 'secrets', 'databases.json');

/** Records the databases of the system that runs on a data folder. */
export async function recordDatabases(dataDir: string, urls: DatabaseUrls): Promise<void> {
  await writeFile(databasesFile(dataDir), `${JSON.stringify(urls, null, 2)}\n`, { mode: 0o600 });
}

/**
 * Returns the databases of the system that runs, or last ran, on a data folder.
 *
 * @throws SystemError when no system ever ran there
 */
export async function recordedDatabases(dataDir: string): Promise<DatabaseUrls> {
  const text = await readFile(databasesFile(dataDir), 'utf8').catch((cause: unknown) => {
    throw new SystemError(`No system was ever started on ${dataDir}.`, { cause });
  });
  return JSON.parse(text) as DatabaseUrls;
}

/**
 * Connects to both databases.
 *
 * @throws SystemError when one of them cannot be reached
 */
export async function openInvariants(urls: DatabaseUrls): Promise<InvariantReader> {
  const inventory = await connect('inventory', urls.inventory);
  const payment = await connect('payment', urls.payment).catch(async (error: unknown) => {
    await inventory.end();
    throw error;
  });
  return {
    read: async () => [
      ...(await readView('inventory', inventory)),
      ...(await readView('payment', payment)),
      ...(await compare(inventory, payment)),
    ],
    close: async () => void (await Promise.all([inventory.end(), payment.end()])),
  };
}

async function connect(name: string, url: string): Promise<pg.Client> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    statement_timeout: STATEMENT_TIMEOUT_MS,
    application_name: 'portcullis invariants',
  });
  // A lost connection makes the next query fail, which is reported.
  client.on('error', () => undefined);
  await client.connect().catch((cause: unknown) => {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new SystemError(`The database of ${name} cannot be reached: ${reason}.`, { cause });
  });
  return client;
}

async function readView(about: 'inventory' | 'payment', client: pg.Client): Promise<InvariantReading[]> {
  const { rows } = await client.query<{ invariant: string; breaches: string; example: string | null }>(
    'SELECT invariant, breaches, example FROM invariants',
  );
  return rows.map(({ invariant, breaches, example }) => ({
    about,
    invariant,
    breaches: Number(breaches),
    example: example ?? undefined,
  }));
}

interface Purchase {
  readonly payment_id: string;
  readonly reservation_id: string;
  readonly user_id: string;
  readonly step: string;
  readonly total: string;
}

interface Delivery {
  readonly reservation_id: string;
  readonly owner: string;
  readonly total: string;
}

/**
 * Goods and money of one purchase change one after the other. Payments are therefore read before and after the
 * reservations: goods are handed out before the payment is captured, so a payment captured by the first read has its
 * goods by the second, and no state on the way looks like a violation.
 */
async function compare(inventory: pg.Client, payment: pg.Client): Promise<InvariantReading[]> {
  const earlier = await purchasesIn(payment);
  const { rows: deliveries } = await inventory.query<Delivery>(
    `SELECT reservation_id, owner, sum(quantity * price_minor)::text || ' ' || min(currency_code) AS total
       FROM reservations JOIN reservation_lines USING (reservation_id)
       WHERE state = 'COMMITTED' AND acting_client IS NOT NULL AND EXISTS (
         SELECT FROM stock_changes
           WHERE stock_changes.reservation_id = reservations.reservation_id AND stock_changes.sku = reservation_lines.sku
             AND kind = 'COMMITTED' AND authorising_token IS NOT NULL
       ) GROUP BY reservation_id, owner`,
  );
  const later = await purchasesIn(payment);
  const delivered = new Map(deliveries.map((delivery) => [delivery.reservation_id, delivery]));
  const bought = new Map(later.map((purchase) => [purchase.reservation_id, purchase]));
  const undelivered = earlier.filter(({ step, reservation_id, user_id, total }) => {
    const delivery = delivered.get(reservation_id);
    return step === 'captured' && !(delivery?.owner === user_id && delivery.total === total);
  });
  const unpaid = deliveries.filter(({ reservation_id }) => {
    const step = bought.get(reservation_id)?.step;
    return step !== 'captured' && step !== 'committing';
  });
  return [
    {
      about: 'both',
      invariant:
        'no charge without goods: what was captured was handed out to the same user at the same price',
      breaches: undelivered.length,
      example: undelivered[0]?.payment_id,
    },
    {
      about: 'both',
      invariant:
        'no goods without charge: what was handed out through payment was captured, or is about to be',
      breaches: unpaid.length,
      example: unpaid[0]?.reservation_id,
    },
  ];
}

async function purchasesIn(payment: pg.Client): Promise<Purchase[]> {
  const { rows } = await payment.query<Purchase>(
    `SELECT payment_id, reservation_id, user_id, step, amount::text || ' ' || currency_code AS total
       FROM payments WHERE reservation_id IS NOT NULL`,
  );
  return rows;
}
