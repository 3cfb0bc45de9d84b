/** The explorer: it visits whole worlds, finds missing guards, and notices what its states lack. */

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { eventOf, eventsOf } from '../../../proofs/explore/events.js';
import { createModel, Expander } from '../../../proofs/explore/expander.js';
import { checkFields } from '../../../proofs/explore/fields.js';
import { GUARDS, SIMULATED_ONLY } from '../../../proofs/explore/guards.js';
import { Oracle } from '../../../proofs/explore/oracle.js';
import { loadProtocol } from '../../../proofs/explore/protocol.js';
import { replay } from '../../../proofs/explore/replay.js';
import { search } from '../../../proofs/explore/search.js';
import type { State } from '../../../proofs/explore/state.js';
import { createTable, FingerprintTable, withRoomFor } from '../../../proofs/explore/table.js';
import type { World } from '../../../proofs/explore/world.js';
import { WORLDS, worldOf } from '../../../proofs/explore/worlds.js';
import { createRandom } from '../../../proofs/shared/random.js';
import { GUARDS as SIMULATED } from '../../../proofs/simulate/guards.js';
import { rejectionOf } from '../../support/outcomes.js';
import { runProgram } from '../../support/programs.js';

/** Small enough for a second. */
const SMALL: World = {
  name: 'small',
  about: 'one entry, one open request, short leases',
  lease: 2,
  questions: 1,
  entries: ['TOKEN'],
  crashes: true,
  states: 0,
};

/** Room in a table of which nobody looks at the size. */
const TABLE_STATES = 200_000;

/** Length of a random walk, in events. */
const WALK_EVENTS = 60;
const WALKS = 5;

// Every state costs some twenty calls of the real code, and the machine may be busy.
const PATIENCE_MS = 180_000;

/** Worlds in which the feed without a rule soon does something else than the tables of the specification. */
const COMPARED: readonly (readonly [guard: string, world: string])[] = [
  ['same-list', 'epoch-keys'],
  ['hydration', 'entries'],
  ['lease', 'entries'],
  ['applied', 'entries'],
  ['latest', 'requests'],
  ['epoch', 'user'],
  ['pull-epoch', 'epoch-one'],
  ['monotonic-clock', 'jump-back'],
  ['clock-rises', 'sleep-back'],
];

/** Compares every feed of a world, breadth first, with the tables. @returns how they differ */
async function differenceIn(world: World, without: string | undefined, states: number): Promise<string> {
  const expander = new Expander(await createModel(world, without, true));
  const table = new FingerprintTable(withRoomFor(createTable(), 0, TABLE_STATES));
  let front = expander.root();
  let visited = 0;
  try {
    while (front.length > 0 && visited < states) {
      const { next, states: found } = expander.expand(front, table);
      front = next;
      visited += found;
    }
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  return 'none';
}

describe('the explorer', function () {
  this.timeout(PATIENCE_MS);

  it('reaches the fix point of a small world, in which every kind of event has happened', async () => {
    const found = await search({ world: SMALL, without: undefined });
    expect(found.violation).to.equal(undefined);
    expect(found.isFixPoint).to.equal(true);
    expect(found.states).to.be.greaterThan(500);
    expect(found.kinds).to.include.members(eventsOf(SMALL));
  });

  it('reaches the same with a table without predecessors, which has no history of a violation', async () => {
    const { states, transitions } = await search({ world: SMALL, without: undefined });
    const found = await search({ world: SMALL, without: undefined, isBare: true });
    expect(found).to.include({ states, transitions, isFixPoint: true });
    const { violation } = await search({ world: SMALL, without: 'lease', isBare: true });
    expect(violation?.what).to.match(/^late: /);
    expect(violation?.events).to.equal(undefined);
  });

  it('finds the shortest history in which a missing guard shows, and the replay shows it with the guard off only', async () => {
    const { violation } = await search({ world: SMALL, without: 'lease' });
    // Ask, read and answer twice, commit, and wait for the bound.
    expect(violation?.events).to.have.length(9);
    const events = violation?.events ?? [];
    const without = await replay(SMALL, 'lease', events, { checksStates: true });
    expect(without.violation)
      .to.equal(violation?.what)
      .and.to.match(/^late: /);
    expect(without.story).to.have.length(9);
    expect((await replay(SMALL, undefined, events)).violation).to.equal(undefined);
  });

  it('compares the feed with the tables of the specification', async () => {
    expect(await differenceIn(SMALL, undefined, 5000)).to.equal('none');
  });

  for (const [guard, world] of COMPARED) {
    it(`finds a feed without ${guard} to differ from the tables of the specification`, async () => {
      expect(await differenceIn(worldOf(world), guard, 10_000)).to.match(
        /tables of the specification differ/,
      );
    });
  }

  it('names a field of the feed or of the enforcement that it does not save', async () => {
    const protocol = await loadProtocol([
      {
        module: 'feed',
        find: '#hydrated = false;\n    //',
        replace: '#hydrated = false;\n    #novelty = 0;\n    //',
      },
    ]);
    expect(() => checkFields(protocol)).to.throw(/fields of Feed .* what becomes of novelty/);
    const other = await loadProtocol([
      {
        module: 'enforcement',
        find: '#decisionsSeen = 0;',
        replace: '#decisionsSeen = 0;\n    #novelty = 0;',
      },
    ]);
    expect(() => checkFields(other)).to.throw(/fields of Enforcement .* what becomes of novelty/);
    checkFields(await loadProtocol());
  });

  it('rejects a change of the code that no longer fits', async () => {
    const error = await rejectionOf(loadProtocol([{ module: 'feed', find: 'no such text', replace: '' }]));
    expect(error).to.have.property('message').that.includes('feed.js, found it 0 times: no such text');
  });

  it('can leave out every guard of the code as it stands', async () => {
    for (const { name, worlds } of GUARDS) {
      expect(worlds.length, name).to.be.greaterThan(0);
      for (const world of worlds) await createModel(worldOf(world), name);
    }
  });

  it('knows every guard of the simulator, or states why it has no such guard', () => {
    const known = [...GUARDS.map(({ name }) => name), ...Object.keys(SIMULATED_ONLY)];
    expect(known).to.include.members([...SIMULATED]);
  });

  for (const world of WORLDS) {
    it(`computes the same states from packed ones as living objects have, in the world "${world.name}"`, async () => {
      const random = createRandom(world.name.length);
      const model = await createModel(world, undefined);
      for (let walk = 0; walk < WALKS; walk += 1) {
        const state = model.initial();
        const packed = new Uint8Array(model.packing.length);
        const events: number[] = [];
        model.packing.pack(state, packed);
        for (let step = 0; step < WALK_EVENTS; step += 1) {
          const at = model.packing.unpack(packed);
          const code = random.pick(model.events(at));
          model.apply(at, code);
          model.packing.pack(at, packed);
          events.push(code);
        }
        const { story, violation } = await replay(world, undefined, events, { checksStates: true });
        expect(story).to.have.length(WALK_EVENTS);
        expect(violation).to.equal(undefined);
      }
    });
  }
});

describe('the canonical form of a state', function () {
  this.timeout(PATIENCE_MS);

  /** From a state and from its canonical form, an event leads to the same canonical form, or it changes nothing there. */
  async function walk(world: World, without: string | undefined, seed: number): Promise<void> {
    const random = createRandom(seed);
    const model = await createModel(world, without);
    const oracle = new Oracle(model);
    const bytesOf = (state: State): string => {
      const bytes = Buffer.alloc(model.packing.length);
      model.packing.pack(state, bytes);
      return bytes.toString('hex');
    };
    let state = model.initial();
    for (let step = 0; step < WALK_EVENTS; step += 1) {
      const canon = { ...state };
      const own = bytesOf(canon);
      const reached = new Set([own]);
      for (const code of model.events(canon)) {
        const after = { ...canon };
        model.apply(after, code);
        reached.add(bytesOf(after));
      }
      const code = random.pick(model.events(state));
      const before = JSON.stringify(state);
      model.apply(state, code);
      expect(reached, `${world.name} without ${without}: ${eventOf(code).kind} after ${before}`).to.include(
        bytesOf({ ...state }),
      );
      const violation = oracle.violationOf({ ...state });
      const canonical = { ...state };
      bytesOf(canonical);
      expect(oracle.violationOf(canonical)).to.equal(violation);
      if (violation !== undefined) return;
      state = { ...state };
    }
  }

  for (const world of WORLDS) {
    it(`reaches the same as the state itself, in the world "${world.name}"`, async () => {
      for (let seed = 0; seed < WALKS; seed += 1) await walk(world, undefined, seed);
    });
  }

  for (const { name, worlds } of GUARDS) {
    it(`reaches the same as the state itself, without "${name}"`, async () => {
      for (const world of worlds) await walk(worldOf(world), name, 1);
    });
  }
});

describe('npm run explore', function () {
  this.timeout(2 * PATIENCE_MS);
  let folder: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'portcullis-explore-'));
  });

  after(() => rm(folder, { recursive: true, force: true }));

  it('writes its figures and the story of a counterexample, and exits 0 when a guard is needed', async () => {
    const json = join(folder, 'figures.json');
    const trace = join(folder, 'trace.json');
    const args = [
      '--worlds',
      'entries-one',
      '--without',
      'lease',
      '--workers',
      '2',
      '--json',
      json,
      '--trace',
      trace,
    ];
    const { code, stdout } = await runProgram(['proofs/explore/main', ...args]);
    expect(stdout)
      .to.contain('the fix point is reached')
      .and.to.match(/ 1 {2}the instance asks/);
    expect(code).to.equal(0);
    const figures = JSON.parse(await readFile(json, 'utf8'));
    expect(figures.worlds['entries-one']).to.include({ fix_point: true, violations: 0 });
    expect(figures.without.lease).to.include({ found: true, steps: 10 });
    expect(JSON.parse(await readFile(trace, 'utf8'))).to.include({ without: 'lease' });
  });

  it('exits 1 when the time is too short', async () => {
    const { code, stdout } = await runProgram([
      'proofs/explore/main',
      '--worlds',
      'epoch-keys',
      '--minutes',
      '0.01',
    ]);
    expect(stdout).to.contain('the time is over');
    expect(code).to.equal(1);
  });
});
