/** No money is lost or moved twice when the primary of the database dies and its standby takes over. */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { ServiceError } from '@portcullis/guard/errors';
import { expect } from 'chai';
import { type ServerPair, startServerPair } from '../../support/standby.js';
import { startRelay, type TcpRelay } from '../../support/tcp-relay.js';
import { until } from '../../support/waiting.js';
import { accountWith, breachesIn, buyerOf, type Instance, olga, openInstance } from './instance.js';
import { Warehouse } from './warehouse.js';

const PRICE = 10n;
const BALANCE = 100_000n;
const WORKERS = 8;
const euros = (minorUnits: bigint) => ({ minorUnits, currencyCode: 'EUR' });

describe('payment on a database that fails over', function () {
  this.timeout(90_000);
  let pair: ServerPair;
  let relay: TcpRelay;
  let instance: Instance;

  before(async () => {
    pair = await startServerPair('books');
    relay = await startRelay(pair.primary.port);
    const url = new URL(pair.primary.url('books'));
    url.host = `127.0.0.1:${relay.port}`;
    instance = await openInstance(url.href, { leaseMs: 500 });
  });
  after(async () => {
    await instance?.close();
    await relay?.cut();
    await pair?.stop();
  });

  it('fails with DEPENDENCY_UNAVAILABLE meanwhile, recovers by itself, and carries out every request once', async () => {
    const warehouse = new Warehouse();
    warehouse.stock('LAMP', euros(PRICE), 1_000_000n);
    const subject = randomUUID();
    const { accountId } = await accountWith(instance, subject, BALANCE);
    const buyer = buyerOf(subject, warehouse.for(subject));
    let isOver = false;
    let refused = 0;
    const done = { deposits: 0n, purchases: 0n };

    /** Retries until the call succeeds, as a client does. */
    async function insist(work: () => Promise<unknown>): Promise<void> {
      for (;;) {
        try {
          await work();
          return;
        } catch (error) {
          const codes = ['DEPENDENCY_UNAVAILABLE', 'REQUEST_IN_PROGRESS', 'RESERVATION_EXPIRED'];
          if (!(error instanceof ServiceError && codes.includes(error.code))) throw error;
          refused += 1;
          await sleep(20);
        }
      }
    }
    const workers = Array.from({ length: WORKERS }, async (_, index) => {
      while (!isOver) {
        const requestId = randomUUID();
        if (index % 2 === 0) {
          const request = { accountId, amount: euros(1n), requestId };
          await insist(() => instance.accounts.deposit(request, olga));
          done.deposits += 1n;
        } else {
          const request = { accountId, lines: [{ sku: 'LAMP', quantity: 1n }], requestId };
          await insist(() => instance.checkout.checkout(request, buyer));
          done.purchases += 1n;
        }
      }
    });
    await until(() => done.deposits > 0n && done.purchases > 0n);
    pair.primary.kill('SIGKILL');
    await relay.cut();
    await until(() => refused > 0);
    await pair.promote();
    // Nothing is carried out while there is no connection.
    const before = { ...done };
    relay.aim(pair.standby.port);
    await relay.mend();
    await until(() => done.deposits > before.deposits && done.purchases > before.purchases);
    isOver = true;
    await Promise.all(workers);
    while ((await instance.checkout.resumeAbandoned()) > 0);

    expect(await breachesIn(instance)).to.deep.equal([]);
    const { balance, held } = await instance.accounts.get(accountId, olga);
    expect({ balance, held }).to.deep.equal({
      balance: BALANCE + done.deposits - done.purchases * PRICE,
      held: 0n,
    });
    expect(warehouse.item('LAMP').sold).to.equal(done.purchases);
  });
});
