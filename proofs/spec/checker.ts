/** Runs steps against the reference instance, and compares what was decided with what the tables say. */

import type { Ticket } from './instance-state.js';
import { ReferenceInstance } from './reference.js';
import type { StateStep, Step } from './steps.js';

/** A step whose decision is not that of the tables. */
export interface Mismatch {
  /** Counts from 1. */
  readonly step: number;
  readonly what: string;
}

/** Compares the steps of one instance with the tables. */
export class Checker {
  readonly #reference: ReferenceInstance;
  readonly #tickets = new Map<string, Ticket>();
  #steps = 0;

  /** @param reference - a new instance unless given */
  constructor(reference: ReferenceInstance = new ReferenceInstance()) {
    this.#reference = reference;
  }

  /** The number of steps so far. */
  get steps(): number {
    return this.#steps;
  }

  /** A request that was made before the first step. */
  addTicket(name: string, ticket: Ticket): void {
    this.#tickets.set(name, ticket);
  }

  /** Applies a step. @returns undefined when its decision is that of the tables */
  check(step: Step): Mismatch | undefined {
    this.#steps += 1;
    const what = this.#decisionOf(step) ?? (step.state && this.#stateOf(step.state));
    return what === undefined ? undefined : { step: this.#steps, what: `${nameOf(step)}: ${what}` };
  }

  #decisionOf(step: Step): string | undefined {
    const reference = this.#reference;
    switch (step.do) {
      case 'ask': {
        const ticket = reference.ask(step.at);
        this.#tickets.set(step.ticket, ticket);
        return differenceIn(ticket.request, step.expect ?? {});
      }
      case 'answer': {
        const ticket = this.#tickets.get(step.ticket);
        if (ticket === undefined) return 'there is no such request';
        this.#tickets.delete(step.ticket);
        return difference('the decision', reference.answer(ticket, step.response), step.expect);
      }
      case 'broadcast':
        return difference('the decision', reference.broadcast(step), step.expect);
      case 'begin-pull':
        reference.beginPull();
        return undefined;
      case 'part':
        return difference('the decision', reference.part(step.part), step.expect);
      case 'abandon-pull':
        reference.abandonPull();
        return undefined;
      case 'lease':
        return leaseDifference(reference.leaseLeftMs(step.at), step.expect);
      case 'revoked':
        return difference('revoked', reference.revokes(step.token, step.name), step.expect);
      case 'valid':
        return difference('valid', reference.isValid(step.name), step.expect);
      case 'state':
        return undefined;
    }
  }

  /** An instance may keep more entries than it must. */
  #stateOf({ entries, ...found }: Partial<StateStep>): string | undefined {
    const state = this.#reference.observed();
    if (entries !== undefined && entries < state.entries) {
      return `the list: ${entries} entries, but the tables say at least ${state.entries}`;
    }
    return differenceIn(state, found);
  }
}

/** Runs a sequence of steps up to the first mismatch. */
export function firstMismatch(steps: Iterable<Step>, reference?: ReferenceInstance): Mismatch | undefined {
  const checker = new Checker(reference);
  for (const step of steps) {
    const mismatch = checker.check(step);
    if (mismatch !== undefined) return mismatch;
  }
  return undefined;
}

function nameOf(step: Step): string {
  return 'ticket' in step ? `${step.do} ${step.ticket}` : step.do;
}

/** Times after the end of the lease are not compared. */
function leaseDifference(table: number, found: number): string | undefined {
  if (table <= 0 && found <= 0) return undefined;
  return difference('the lease', table, found);
}

function differenceIn<T extends object>(table: T, found: Partial<T>): string | undefined {
  for (const name of Object.keys(found) as (keyof T & string)[]) {
    const what = difference(name, table[name], found[name]);
    if (what !== undefined) return what;
  }
  return undefined;
}

function difference(name: string, table: unknown, found: unknown): string | undefined {
  if (isEqual(table, found)) return undefined;
  return `${name}: found ${textOf(found)}, but the tables say ${textOf(table)}`;
}

function isEqual(one: unknown, other: unknown): boolean {
  if (one === other) return true;
  if (typeof one !== 'object' || typeof other !== 'object') return false;
  return JSON.stringify(one) === JSON.stringify(other);
}

function textOf(value: unknown): string {
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}
