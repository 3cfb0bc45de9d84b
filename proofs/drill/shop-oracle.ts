/** The oracle of the shop drills: it checks invariants during faults, and all answers and balances at the end. */

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

/** Violations that were found. */
export interface Findings {
  /** Lost responses or effects. */
  lost: number;
  /** Duplicated effects of a request. */
  doubled: number;
  /** Checks that found a violation in the stock. */
  oversold: number;
  /** Checks that found a violation in the ledger, or between goods and money. */
  imbalances: number;
  /** Payments, reservations and holds that did not end. */
  stuck: number;
  /** Number of checks of all invariants. */
  checks: number;
  /** Descriptions of the first violations. */
  readonly details: string[];
}

/** No violations. */
export function noFindings(): Findings {
  return { lost: 0, doubled: 0, oversold: 0, imbalances: 0, stuck: 0, checks: 0, details: [] };
}

/** Number of violations. */
export function violationsIn({ lost, doubled, oversold, imbalances, stuck }: Findings): number {
  return lost + doubled + oversold + imbalances + stuck;
}

/** Records a violation. */
export function note(
  findings: Findings,
  kind: 'lost' | 'doubled' | 'stuck',
  detail: string,
  count = 1,
): void {
  findings[kind] += count;
  tell(findings, `${kind}: ${detail}`);
}

/** Checks the invariants of both databases continuously until it is stopped. */
export function watchInvariants(shop: Shop, findings: Findings): { stop(): Promise<void> } {
  let isStopped = false;
  async function watch(): Promise<void> {
    while (!isStopped) {
      const beganMs = nowMs();
      const readings = await shop.invariants.read();
      findings.checks += 1;
      for (const reading of readings) if (reading.breaches > 0) noteBreach(findings, reading);
      // A long check leaves the database time for other work.
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

/** Final checks: everything has ended, every response is repeated identically, and balances and stock are correct. */
export class Audit {
  readonly #shop: Shop;
  readonly #trade: Trade;
  readonly #wares: readonly Ware[];
  readonly #findings: Findings;
  /** Sums of the settled requests. */
  readonly #balances = new Map<string, bigint>();
  readonly #sold = new Map<string, bigint>();

  constructor(options: {
    shop: Shop;
    trade: Trade;
    wares: readonly Ware[];
    findings: Findings;
    /** All shoppers, with the initial balance of each. */
    shoppers: readonly (readonly [Shopper, bigint])[];
  }) {
    this.#shop = options.shop;
    this.#trade = options.trade;
    this.#wares = options.wares;
    this.#findings = options.findings;
    for (const [{ accountId }, minorUnits] of options.shoppers) this.#balances.set(accountId, minorUnits);
  }

  /** Waits until nothing is pending; whatever is still pending after a time limit is stuck. */
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
   * Repeats every request since the last check and sums the results. No fault may be active.
   *
   * @param every - repeats one answered request in this many; open requests are always repeated
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

  /** One group for each shopper: its requests are repeated in order. */
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

  /** Adds the response of a request to the sums. */
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
