/**
 * What must always be true of a running system: the `invariants` views of the two databases, and what only both
 * together can tell, namely that goods and money agree.
 */

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { SystemError } from './system-error.js';

const CONNECT_TIMEOUT_MS = 5_000;
/** A checkout whose payment process died is under way for as long as it takes to come back. */
const STATEMENT_TIMEOUT_MS = 300_000;

/** One thing that must always be true, and how often it is not. */
export interface InvariantReading {
  readonly about: 'inventory' | 'payment' | 'both';
  readonly invariant: string;
  readonly breaches: number;
  /** Where, for one of the breaches; `undefined` when there is none. */
  readonly example: string | undefined;
}

/** The databases of a system, as roles that may read all of them. */
export interface DatabaseUrls {
  readonly inventory: string;
  readonly payment: string;
}

/** Connections through which invariants are read. */
export interface InvariantReader {
  /** Reads all of them. Those of one database are of one moment; those of both allow for what is under way. */
  read(): Promise<readonly InvariantReading[]>;
  close(): Promise<void>;
}

/** Where a start leaves word of its databases. The passwords in it are those of the data folder anyway. */
const databasesFile = (dataDir: string): string => join(dataDir, 'secrets', 'databases.json');

/** Leaves word of the databases of the system that runs on a data folder. */
export async function recordDatabases(dataDir: string, urls: DatabaseUrls): Promise<void> {
  await writeFile(databasesFile(dataDir), `${JSON.stringify(urls, null, 2)}\n`, { mode: 0o600 });
}

/**
 * The databases of the system that runs, or last ran, on a data folder.
 *
 * @throws SystemError when none ever did
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
  // A query that is under way tells of it anyway.
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
 * Goods and money of the same purchase change one after the other. Payments are read before and after reservations,
 * so what was true at one moment cannot look like a breach: goods leave before they are paid, and whoever has paid
 * by the first look had the goods by the second.
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
