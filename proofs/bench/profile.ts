/** The shares of a server's time, from a V8 profile. */

import type { Profiler } from 'node:inspector/promises';
import type { Table } from './section.js';

/** Microseconds a call, by part of the program. */
export type Shares = Readonly<Record<Part, number>>;

const PARTS = ['the guard', 'grpc-js', "Node's own JavaScript", 'native code', 'garbage collection'] as const;
type Part = (typeof PARTS)[number];

/** Sums up a profile; idle time is omitted. */
export function sharesOf({ nodes, samples = [], timeDeltas = [] }: Profiler.Profile, calls: number): Shares {
  const byId = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const shares: Record<Part, number> = {
    'the guard': 0,
    'grpc-js': 0,
    "Node's own JavaScript": 0,
    'native code': 0,
    'garbage collection': 0,
  };
  for (const [index, sample] of samples.entries()) {
    const frame = byId.get(sample);
    if (frame === undefined || frame.functionName === '(idle)') continue;
    shares[partOf(frame)] += (timeDeltas[index] ?? 0) / calls;
  }
  return shares;
}

function partOf({ functionName, url }: { readonly functionName: string; readonly url: string }): Part {
  if (functionName === '(garbage collector)') return 'garbage collection';
  if (url.startsWith('node:')) return "Node's own JavaScript";
  if (url.includes('/@grpc/grpc-js/')) return 'grpc-js';
  if (url.includes('/interceptors/')) return 'the guard';
  return 'native code';
}

export function profileTable(arms: Readonly<Record<string, Shares>>): Table {
  const names = Object.keys(arms);
  const rows = PARTS.map((part) => [part, ...names.map((name) => (arms[name]?.[part] ?? 0).toFixed(2))]);
  const total = names.map((name) =>
    PARTS.reduce((sum, part) => sum + (arms[name]?.[part] ?? 0), 0).toFixed(2),
  );
  return {
    title: 'shares of the time, in µs a call, with a V8 sample every 0.2 ms',
    rows: [['', ...names], ...rows, ['all', ...total]],
  };
}
