/** The catalogue on a real database: accepted and rejected requests, and responses to retries. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import fc from 'fast-check';
import { codeOf, rejectionOf, serviceErrorOf, violatedFieldsOf } from '../../support/outcomes.js';
import { alice, breachesIn, type Instance, newSku, olga, openFreshInstance, stockUp } from './instance.js';

const ALL = { pageSize: 0, pageToken: '', filter: '' };
const INT64_MAX = 2n ** 63n - 1n;
const INT64_MIN = -(2n ** 63n);

describe('inventory items', () => {
  let inventory: Instance;

  before(async () => {
    inventory = await openFreshInstance();
  });
  after(() => inventory.close());

  function item(change: object = {}) {
    const unitPrice = { minorUnits: 1n, currencyCode: 'EUR' };
    return { sku: newSku(), name: 'Lamp', unitPrice, onHand: 5n, requestId: randomUUID(), ...change };
  }
  function adjustment(sku: string, delta: bigint, change: object = {}) {
    return { sku, delta, reason: 'delivery', requestId: randomUUID(), ...change };
  }

  describe('createItem()', () => {
    it('stores every field', async () => {
      const unitPrice = { minorUnits: INT64_MAX, currencyCode: 'JPY' };
      const request = item({ name: 'Łampa 灯 👩‍🚀', unitPrice, onHand: 1_000_000_000n });
      const created = await inventory.items.create(request, olga);
      expect(created).to.include({
        sku: request.sku,
        name: 'Łampa 灯 👩‍🚀',
        onHand: 1_000_000_000n,
        reserved: 0n,
      });
      expect(created.unitPrice).to.deep.equal(unitPrice);
      expect(await inventory.items.get(request.sku)).to.deep.equal(created);
    });

    it('rejects a sku that exists', async () => {
      const { sku } = await stockUp(inventory, 1n);
      expect(await codeOf(inventory.items.create(item({ sku }), olga))).to.equal('ALREADY_EXISTS');
      expect((await inventory.items.get(sku)).name).to.equal('Thing');
    });

    it('creates an item once when many callers create the same sku', async () => {
      const sku = newSku();
      const outcomes = await Promise.allSettled(
        Array.from({ length: 8 }, () => inventory.items.create(item({ sku }), olga)),
      );
      expect(outcomes.filter(({ status }) => status === 'fulfilled')).to.have.length(1);
    });

    it('returns the first response to a retry, even after later changes', async () => {
      const request = item();
      const first = await inventory.items.create(request, olga);
      await inventory.items.adjust(adjustment(request.sku, 7n), olga);
      expect(await inventory.items.create(request, olga)).to.deep.equal(first);
    });

    it('reports all violations together', async () => {
      const bad = item({ sku: 'lower', name: '', unitPrice: undefined, onHand: -1n, requestId: '' });
      expect(await violatedFieldsOf(inventory.items.create(bad, olga))).to.deep.equal([
        'name',
        'on_hand',
        'request_id',
        'sku',
        'unit_price.currency_code',
        'unit_price.minor_units',
      ]);
    });

    const badFields: [string, object, string][] = [
      ['an empty sku', { sku: '' }, 'sku'],
      ['a sku of 65 characters', { sku: 'A'.repeat(65) }, 'sku'],
      ['a sku in lower case', { sku: 'lamp' }, 'sku'],
      ['a sku that begins with a dot', { sku: '.A' }, 'sku'],
      ['a sku with a newline at its end', { sku: 'A\n' }, 'sku'],
      ['a sku with look-alike letters', { sku: 'LАMP' }, 'sku'],
      ['a blank name', { name: ' \u3000' }, 'name'],
      ['a name of 201 characters', { name: 'x'.repeat(201) }, 'name'],
      ['a name of a megabyte', { name: 'x'.repeat(2 ** 20) }, 'name'],
      ['a name with NUL', { name: 'a\0b' }, 'name'],
      ['a name with a line break', { name: 'a\nb' }, 'name'],
      ['a name that was invalid UTF-8', { name: 'a\uFFFD' }, 'name'],
      ['a price of 0', { unitPrice: { minorUnits: 0n, currencyCode: 'EUR' } }, 'unit_price.minor_units'],
      [
        'a negative price',
        { unitPrice: { minorUnits: INT64_MIN, currencyCode: 'EUR' } },
        'unit_price.minor_units',
      ],
      ['no currency', { unitPrice: { minorUnits: 1n, currencyCode: '' } }, 'unit_price.currency_code'],
      [
        'a currency in lower case',
        { unitPrice: { minorUnits: 1n, currencyCode: 'eur' } },
        'unit_price.currency_code',
      ],
      [
        'an unknown currency',
        { unitPrice: { minorUnits: 1n, currencyCode: 'ABC' } },
        'unit_price.currency_code',
      ],
      ['a negative stock', { onHand: -1n }, 'on_hand'],
      ['a stock of 1,000,000,001', { onHand: 1_000_000_001n }, 'on_hand'],
      ['a stock of int64 max', { onHand: INT64_MAX }, 'on_hand'],
      ['no request id', { requestId: '' }, 'request_id'],
      ['a request id of 256 characters', { requestId: 'x'.repeat(256) }, 'request_id'],
      ['a request id with NUL', { requestId: 'a\0' }, 'request_id'],
      ['a request id that was invalid UTF-8', { requestId: 'a\uFFFD' }, 'request_id'],
    ];
    for (const [what, change, field] of badFields) {
      it(`rejects ${what}`, async () => {
        const bad = item(change);
        expect(await violatedFieldsOf(inventory.items.create(bad, olga))).to.deep.equal([field]);
        if (field !== 'sku') expect(await codeOf(inventory.items.get(bad.sku))).to.equal('NOT_FOUND');
      });
    }

    it('accepts names and request ids at their limits', async () => {
      const request = item({ name: '👩'.repeat(200), requestId: `${randomUUID()}${'x'.repeat(219)}` });
      expect((await inventory.items.create(request, olga)).name).to.equal('👩'.repeat(200));
    });

    it('distinguishes request ids that differ only in Unicode normalisation', async () => {
      const suffix = randomUUID();
      const one = await inventory.items.create(item({ requestId: `caf\u00e9 ${suffix}` }), olga);
      const other = await inventory.items.create(item({ requestId: `cafe\u0301 ${suffix}` }), olga);
      expect(one.sku).not.to.equal(other.sku);
    });
  });

  describe('getItem()', () => {
    it('rejects an invalid sku, and returns NOT_FOUND for an unknown one', async () => {
      expect(await violatedFieldsOf(inventory.items.get("' OR 1=1"))).to.deep.equal(['sku']);
      expect(await codeOf(inventory.items.get(newSku()))).to.equal('NOT_FOUND');
    });
  });

  describe('listItems()', () => {
    it('lists every item once, in pages, ordered by sku', async () => {
      const prefix = newSku('LIST');
      const skus = ['-', '.', '0', 'A', 'Z', '_'].map((end) => `${prefix.slice(0, 40)}${end}`);
      for (const sku of skus) await stockUp(inventory, 1n, sku);
      const seen: string[] = [];
      let pageToken = '';
      do {
        const page = await inventory.items.list({ pageSize: 4, pageToken, filter: '' });
        expect(page.items.length).to.be.at.most(4);
        seen.push(...page.items.map(({ sku }) => sku));
        pageToken = page.nextPageToken;
      } while (pageToken !== '');
      expect(seen.filter((sku) => skus.includes(sku))).to.deep.equal(skus);
      expect(new Set(seen).size).to.equal(seen.length);
      expect(seen).to.deep.equal([...seen].sort());
    });

    it('rejects invalid page sizes and page tokens', async () => {
      expect(
        await violatedFieldsOf(inventory.items.list({ pageSize: -1, pageToken: '', filter: '' })),
      ).to.deep.equal(['page_size']);
      expect(
        await violatedFieldsOf(inventory.items.list({ pageSize: 0, pageToken: 'x', filter: '' })),
      ).to.deep.equal(['page_token']);
    });
  });

  describe('listItems() and listStockChanges() with filters', () => {
    it('returns the matching items page by page, and rejects the page token of another filter', async () => {
      const name = `Filtered ${newSku()}`;
      for (const onHand of [1n, 5n, 9n]) {
        const unitPrice = { minorUnits: 100n * onHand, currencyCode: 'EUR' };
        await inventory.items.create(
          {
            sku: newSku(),
            name,
            unitPrice,
            onHand,
            requestId: randomUUID(),
          },
          olga,
        );
      }
      const list = (filter: string, pageToken = '', pageSize = 1) =>
        inventory.items.list({ pageSize, pageToken, filter });
      const many = `name = "${name}" AND on_hand > 1`;
      const first = await list(many);
      const second = await list(many, first.nextPageToken);
      const found = [...first.items, ...second.items].map(({ onHand }) => onHand);
      expect(found.sort()).to.deep.equal([5n, 9n]);
      expect(second.nextPageToken).to.equal('');
      expect(await violatedFieldsOf(list(`name = "${name}"`, first.nextPageToken))).to.deep.equal([
        'page_token',
      ]);
      const dear = await list(`name = "${name}" AND unit_price.minor_units >= 900`, '', 10);
      expect(dear.items.map(({ onHand }) => onHand)).to.deep.equal([9n]);
      const injected = await list(`name = "'; DROP TABLE items; --"`, '', 10);
      expect(injected.items).to.deep.equal([]);
      expect(await violatedFieldsOf(list('owner = "alice"'))).to.deep.equal(['filter']);
    });

    it('returns the history of an item, newest first, with reasons and actors', async () => {
      const { sku } = await stockUp(inventory, 10n);
      await inventory.items.adjust({ sku, delta: -3n, reason: 'broken', requestId: randomUUID() }, olga);
      await inventory.items.adjust({ sku, delta: 5n, reason: 'found', requestId: randomUUID() }, olga);
      const list = (filter: string, pageToken = '', pageSize = 50) =>
        inventory.items.listChanges({ sku, pageSize, pageToken, filter });
      const first = await list('', '', 2);
      const rest = await list('', first.nextPageToken, 2);
      const seen = [...first.changes, ...rest.changes].map(({ kind, reason, delta, onHand, actor }) => [
        ...[kind, reason, delta.onHand, onHand, actor?.subject],
      ]);
      expect(seen).to.deep.equal([
        ['ADJUSTED', 'found', 5n, 12n, 'olga'],
        ['ADJUSTED', 'broken', -3n, 7n, 'olga'],
        ['CREATED', '', 10n, 10n, 'olga'],
      ]);
      const losses = await list('kind = ADJUSTED AND on_hand_delta < 0');
      expect(losses.changes.map(({ reason }) => reason)).to.deep.equal(['broken']);
      expect(await codeOf(inventory.items.listChanges({ sku: newSku(), ...ALL }))).to.equal('NOT_FOUND');
    });

    it('rejects SQL that changes or deletes the history', async () => {
      for (const statement of [
        'UPDATE stock_changes SET reason = NULL',
        'DELETE FROM stock_changes',
        'TRUNCATE stock_changes',
      ]) {
        const refusal = await rejectionOf(inventory.database.query(statement));
        expect(refusal.message).to.contain('its rows stay as they were written');
      }
    });
  });

  describe('adjustStock()', () => {
    it('adds and removes units', async () => {
      const { sku } = await stockUp(inventory, 10n);
      expect((await inventory.items.adjust(adjustment(sku, 5n), olga)).onHand).to.equal(15n);
      expect((await inventory.items.adjust(adjustment(sku, -15n), olga)).onHand).to.equal(0n);
    });

    it('never removes reserved units', async () => {
      const { sku } = await stockUp(inventory, 10n);
      const lines = [{ sku, quantity: 4n }];
      await inventory.reservations.reserve({ lines, timeToLive: undefined, requestId: randomUUID() }, alice);
      const error = await serviceErrorOf(inventory.items.adjust(adjustment(sku, -7n), olga));
      expect(error.code).to.equal('INSUFFICIENT_STOCK');
      expect(error.message).to.equal(`only 6 units of ${sku} are not reserved`);
      expect(await inventory.items.get(sku)).to.include({ onHand: 10n, reserved: 4n });
      expect((await inventory.items.adjust(adjustment(sku, -6n), olga)).onHand).to.equal(4n);
    });

    it('accepts stock up to 1e12 units and rejects one more', async () => {
      const { sku } = await stockUp(inventory, 1_000_000_000n);
      const rest = 1_000_000_000_000n - 1_000_000_000n;
      expect((await inventory.items.adjust(adjustment(sku, rest), olga)).onHand).to.equal(1_000_000_000_000n);
      expect(await violatedFieldsOf(inventory.items.adjust(adjustment(sku, 1n), olga))).to.deep.equal([
        'delta',
      ]);
    });

    it('returns NOT_FOUND for an unknown item', async () => {
      expect(await codeOf(inventory.items.adjust(adjustment(newSku(), 1n), olga))).to.equal('NOT_FOUND');
    });

    for (const delta of [0n, INT64_MAX, INT64_MIN, 1_000_000_000_001n]) {
      it(`rejects a delta of ${delta}`, async () => {
        const { sku } = await stockUp(inventory, 1n);
        expect(await violatedFieldsOf(inventory.items.adjust(adjustment(sku, delta), olga))).to.include(
          'delta',
        );
        expect((await inventory.items.get(sku)).onHand).to.equal(1n);
      });
    }

    it('carries out a request once when it is sent many times concurrently', async () => {
      const { sku } = await stockUp(inventory, 0n);
      const request = adjustment(sku, 3n);
      const outcomes = await Promise.allSettled(
        Array.from({ length: 20 }, () => inventory.items.adjust(request, olga)),
      );
      const codes = outcomes.map((outcome) => (outcome.status === 'fulfilled' ? 'OK' : outcome.reason.code));
      expect(new Set(codes)).to.satisfy((seen: Set<string>) =>
        [...seen].every((code) => code === 'OK' || code === 'REQUEST_IN_PROGRESS'),
      );
      expect(codes).to.include('OK');
      expect((await inventory.items.get(sku)).onHand).to.equal(3n);
    });

    it('rejects a request id that was used with another payload, whichever field differs', async () => {
      const { sku } = await stockUp(inventory, 10n);
      const request = adjustment(sku, 3n);
      await inventory.items.adjust(request, olga);
      for (const change of [
        { delta: 4n },
        { reason: 'delivery ' },
        { sku: (await stockUp(inventory, 1n)).sku },
      ]) {
        const other = inventory.items.adjust({ ...request, ...change }, olga);
        expect(await codeOf(other)).to.equal('REQUEST_ID_REUSED');
      }
      expect((await inventory.items.get(sku)).onHand).to.equal(13n);
    });

    it('carries out a request that failed before when it is retried', async () => {
      const { sku } = await stockUp(inventory, 1n);
      const request = adjustment(sku, -2n);
      expect(await codeOf(inventory.items.adjust(request, olga))).to.equal('INSUFFICIENT_STOCK');
      await inventory.items.adjust(adjustment(sku, 1n), olga);
      expect((await inventory.items.adjust(request, olga)).onHand).to.equal(0n);
    });

    it('treats the same request id of two callers as two requests', async () => {
      const { sku } = await stockUp(inventory, 0n);
      const request = adjustment(sku, 1n);
      await inventory.items.adjust(request, olga);
      await inventory.items.adjust(request, { subject: 'otto', isOperator: true, actingClient: undefined });
      expect((await inventory.items.get(sku)).onHand).to.equal(2n);
    });

    it('keeps the sum of all accepted adjustments', async () => {
      const deltas = fc.array(fc.bigInt({ min: -50n, max: 50n }), { minLength: 1, maxLength: 12 });
      const adds = fc.asyncProperty(deltas, async (all) => {
        const { sku } = await stockUp(inventory, 60n);
        let expected = 60n;
        for (const delta of all) {
          const isPossible = delta !== 0n && expected + delta >= 0n;
          const outcome = await inventory.items.adjust(adjustment(sku, delta), olga).then(
            () => true,
            () => false,
          );
          expect(outcome).to.equal(isPossible);
          if (isPossible) expected += delta;
        }
        expect((await inventory.items.get(sku)).onHand).to.equal(expected);
      });
      await fc.assert(adds, { numRuns: 15 });
    });
  });

  describe('the database after all these tests', () => {
    it('satisfies every invariant', async () => {
      expect(await breachesIn(inventory)).to.deep.equal([]);
    });
  });
});
