/** Whether everything came out as it should: read all the time while things break, and counted up when all is quiet. */

import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { ask } from '../../scripts/system/calls.js';
import type { InvariantReading } from '../../scripts/system/invariants.js';
import { nowMs } from '../shared/waiting.js';
import type { Shop, Shopper } from './shop-environment.js';
import { type Deal, insist, isSame, type Trade, type Ware } from './shop-requests.js';

const CHECK_PAUSE_MS = 50;
const QUIET_POLL_MS = 50;
const QUIET_MS_MAX = 20_000;
const REPEAT_MS_MAX = 15_000;
const DETAILS_MAX = 20;

/** What was found wrong. */
export interface Findings {
  /** Answers or effects that are gone. */
  lost: number;
  /** Effects that a request had more than once. */
  doubled: number;
  /** Readings with a breach in the stock. */
  oversold: number;
  /** Readings with a breach in the books, or between goods and money. */
  imbalances: number;
  /** Payments, reservations and holds that did not come to an end. */
  stuck: number;
  /** How often all invariants were read. */
  checks: number;
  /** The first of them, in words. */
  readonly details: string[];
}

/** Nothing, so far. */
export function noFindings(): Findings {
  return { lost: 0, doubled: 0, oversold: 0, imbalances: 0, stuck: 0, checks: 0, details: [] };
}

/** How many things were found wrong. */
export function violationsIn({ lost, doubled, oversold, imbalances, stuck }: Findings): number {
  return lost + doubled + oversold + imbalances + stuck;
}

/** Notes something wrong. */
export function note(
  findings: Findings,
  kind: 'lost' | 'doubled' | 'stuck',
  detail: string,
  count = 1,
): void {
  findings[kind] += count;
  tell(findings, `${kind}: ${detail}`);
}

/** Reads the invariants of both databases again and again until it is stopped. */
export function watchInvariants(shop: Shop, findings: Findings): { stop(): Promise<void> } {
  let isStopped = false;
  async function watch(): Promise<void> {
    while (!isStopped) {
      const beganMs = nowMs();
      const readings = await shop.invariants.read();
      findings.checks += 1;
      for (const reading of readings) if (reading.breaches > 0) noteBreach(findings, reading);
      // When there is much to add up, the database has something else to do as well.
      await sleep(Math.max(CHECK_PAUSE_MS, nowMs() - beganMs));
    }
  }
  const watching = watch();
  return {
    stop: async () => {
      isStopped = true;
      await watching;
    },
  };
}

/** Counts up: everything has ended, every answer is given again, and balances and stock are what they should be. */
export class Audit {
  readonly #shop: Shop;
  readonly #trade: Trade;
  readonly #wares: readonly Ware[];
  readonly #findings: Findings;
  /** What deals that are accounted for came to. */
  readonly #balances = new Map<string, bigint>();
  readonly #sold = new Map<string, bigint>();

  constructor(options: {
    shop: Shop;
    trade: Trade;
    wares: readonly Ware[];
    findings: Findings;
    /** Everybody, with what was in the account from the beginning. */
    shoppers: readonly (readonly [Shopper, bigint])[];
  }) {
    this.#shop = options.shop;
    this.#trade = options.trade;
    this.#wares = options.wares;
    this.#findings = options.findings;
    for (const [{ accountId }, minorUnits] of options.shoppers) this.#balances.set(accountId, minorUnits);
  }

  /** Waits until nothing is under way; what still is after some time is stuck. */
  async quiet(): Promise<void> {
    const untilMs = nowMs() + QUIET_MS_MAX;
    let left = await this.#unfinished();
    while (left !== '' && nowMs() < untilMs) {
      await sleep(QUIET_POLL_MS);
      left = await this.#unfinished();
    }
    if (left !== '') note(this.#findings, 'stuck', left);
  }

  /**
   * Asks everything again that was asked since the last time, and counts up. The system must be whole.
   *
   * @param every - repeats one answered request in so many alone; what is open is always repeated
   */
  async count(every = 1): Promise<void> {
    const deals = this.#trade.deals.splice(0);
    const untilMs = nowMs() + REPEAT_MS_MAX;
    const repeated = deals.filter(({ outcome }, index) => outcome.kind === 'open' || index % every === 0);
    await Promise.all(this.#groups(repeated).map((group) => this.#repeat(group, untilMs)));
    await this.quiet();
    for (const deal of deals) this.account(deal);
    for (const [accountId, expected] of this.#balances) await this.#compareBalance(accountId, expected);
    for (const ware of this.#wares) await this.#compareStock(ware);
  }

  /** One group for each shopper: its requests are repeated in their order. */
  #groups(deals: readonly Deal[]): Deal[][] {
    const groups = new Map<Shopper, Deal[]>();
    for (const deal of deals) {
      const group = groups.get(deal.shopper);
      if (group === undefined) groups.set(deal.shopper, [deal]);
      else group.push(deal);
    }
    return [...groups.values()];
  }

  async #repeat(deals: readonly Deal[], untilMs: number): Promise<void> {
    for (const deal of deals) {
      const first = deal.outcome;
      const again: Deal = { ...deal, outcome: { kind: 'open' } };
      await insist(again, untilMs);
      if (again.outcome.kind === 'open') note(this.#findings, 'stuck', `${deal.name} gets no answer`);
      else if (first.kind === 'open') deal.outcome = again.outcome;
      else if (first.kind === 'answered' && !isSame(first, again.outcome)) {
        const said = again.outcome.kind === 'refused' ? again.outcome.reason : 'another answer';
        note(this.#findings, 'lost', `${deal.name} was answered, and now gets ${said}`);
      } else if (first.kind === 'refused') deal.outcome = again.outcome;
    }
  }

  /** Takes what a request was answered into account. */
  account({ outcome, shopper: { accountId }, effect }: Deal): void {
    if (outcome.kind !== 'answered') return;
    const { minorUnits, sold } = effect(outcome.bytes);
    this.#balances.set(accountId, (this.#balances.get(accountId) ?? 0n) + minorUnits);
    for (const { sku, quantity } of sold) this.#sold.set(sku, (this.#sold.get(sku) ?? 0n) + quantity);
  }

  async #compareBalance(accountId: string, expected: bigint): Promise<void> {
    const { payment } = this.#shop.clients;
    const options = { token: this.#shop.operator };
    const { account } = await ask(payment.getAccount.bind(payment), { accountId }, options);
    const balance = account?.balance?.minorUnits ?? 0n;
    if (balance === expected) return;
    const kind = balance < expected ? 'doubled' : 'lost';
    note(this.#findings, kind, `account ${accountId} has ${balance} instead of ${expected}`);
    this.#balances.set(accountId, balance);
  }

  async #compareStock({ sku, onHand }: Ware): Promise<void> {
    const [inventory] = this.#shop.clients.inventory;
    const { item } = await ask(inventory.getItem.bind(inventory), { sku }, { token: this.#shop.operator });
    const sold = this.#sold.get(sku) ?? 0n;
    const there = item?.onHand ?? 0n;
    if (there === onHand - sold) return;
    const kind = there < onHand - sold ? 'doubled' : 'lost';
    note(this.#findings, kind, `${there} of ${sku} are left instead of ${onHand - sold}`);
    this.#sold.set(sku, onHand - there);
  }

  async #unfinished(): Promise<string> {
    const { databases } = this.#shop.system;
    const [payments, holds] = await numbersIn(
      databases.payment,
      `SELECT (SELECT count(*) FROM payments WHERE step NOT IN ('captured', 'failed')), (SELECT count(*) FROM holds)`,
    );
    const [reservations] = await numbersIn(
      databases.inventory,
      `SELECT count(*) FROM reservations WHERE state = 'ACTIVE'`,
    );
    if (payments === 0 && holds === 0 && reservations === 0) return '';
    return `${payments} payments, ${holds} holds and ${reservations} reservations are under way`;
  }
}

function noteBreach(findings: Findings, { about, invariant, breaches, example }: InvariantReading): void {
  findings[about === 'inventory' ? 'oversold' : 'imbalances'] += 1;
  tell(findings, `${about}: ${invariant}: ${breaches}, as ${example}`);
}

function tell({ details }: Findings, detail: string): void {
  if (details.length < DETAILS_MAX) details.push(detail);
}

async function numbersIn(url: string, query: string): Promise<number[]> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    const { rows } = await client.query<unknown[]>({ text: query, rowMode: 'array' });
    return (rows[0] ?? []).map(Number);
  } finally {
    await client.end();
  }
}
