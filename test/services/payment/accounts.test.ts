/** Opening accounts, deposits, and lists of entries. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { MINOR_UNITS_MAX } from '../../../services/common/money.js';
import { PaymentError } from '../../../services/payment/errors.js';
import { codeOf, serviceErrorOf, violatedFieldsOf } from '../../support/outcomes.js';
import { accountWith, breachesIn, callerOf, type Instance, olga, openFreshInstance } from './instance.js';

const euros = (minorUnits: bigint) => ({ minorUnits, currencyCode: 'EUR' });

describe('accounts of payment', () => {
  let instance: Instance;

  before(async () => {
    instance = await openFreshInstance();
  });
  after(() => instance.close());

  describe('open', () => {
    it('opens an empty account', async () => {
      const account = await instance.accounts.open(
        { currencyCode: 'JPY', requestId: 'open-1' },
        callerOf('opener'),
      );
      expect(account).to.include({ userId: 'opener', currencyCode: 'JPY', balance: 0n, held: 0n });
    });

    it('returns the same account to a retry', async () => {
      const open = () =>
        instance.accounts.open({ currencyCode: 'EUR', requestId: 'again' }, callerOf('repeater'));
      const first = await open();
      expect(await open()).to.deep.equal(first);
    });

    it('rejects a second account in the same currency, and opens one in another', async () => {
      await accountWith(instance, 'saver', 0n, 'EUR');
      expect(await codeOf(accountWith(instance, 'saver', 0n, 'EUR'))).to.equal('ALREADY_EXISTS');
      await accountWith(instance, 'saver', 0n, 'USD');
    });

    it('opens one account for twenty concurrent requests', async () => {
      const racers = Array.from({ length: 20 }, () =>
        accountWith(instance, 'racer', 0n).catch(() => undefined),
      );
      const opened = (await Promise.all(racers)).filter((account) => account !== undefined);
      expect(opened).to.have.lengthOf(1);
    });

    it('rejects a request_id that was used with another payload', async () => {
      const caller = callerOf('reuser');
      await instance.accounts.open({ currencyCode: 'EUR', requestId: 'one' }, caller);
      const other = instance.accounts.open({ currencyCode: 'USD', requestId: 'one' }, caller);
      expect(await codeOf(other)).to.equal('REQUEST_ID_REUSED');
    });

    it('reports all invalid fields together', async () => {
      const bad = { currencyCode: 'EURO', requestId: '' };
      expect(await violatedFieldsOf(instance.accounts.open(bad, callerOf('x')))).to.deep.equal([
        'currency_code',
        'request_id',
      ]);
    });
  });

  describe('get', () => {
    it('returns the same error for another user’s account and for a missing one', async () => {
      const { accountId } = await accountWith(instance, 'owner', 0n);
      const foreign = await serviceErrorOf(instance.accounts.get(accountId, callerOf('stranger')));
      const missing = await serviceErrorOf(instance.accounts.get(randomUUID(), callerOf('stranger')));
      expect(foreign.code).to.equal('NOT_FOUND');
      expect({ code: foreign.code, message: foreign.message }).to.deep.equal({
        code: missing.code,
        message: missing.message,
      });
    });

    it('returns every user’s account to operators', async () => {
      const { accountId } = await accountWith(instance, 'watched', 0n);
      expect((await instance.accounts.get(accountId, olga)).userId).to.equal('watched');
    });

    it('returns NOT_FOUND for accounts without an owner, even to operators', async () => {
      await accountWith(instance, 'payer', 1n, 'CHF');
      const { rows } = await instance.database.query<{ account_id: string }>(
        `SELECT account_id FROM accounts WHERE kind = 'WORLD' AND currency_code = 'CHF'`,
      );
      const { account_id: world = '' } = rows[0] ?? {};
      expect(await codeOf(instance.accounts.get(world, olga))).to.equal('NOT_FOUND');
      const deposit = { accountId: world, amount: { minorUnits: 1n, currencyCode: 'CHF' }, requestId: 'w' };
      expect(await codeOf(instance.accounts.deposit(deposit, olga))).to.equal('NOT_FOUND');
    });
  });

  describe('deposit', () => {
    it('moves money from the WORLD account into the account, once for a retried request', async () => {
      const { accountId } = await accountWith(instance, 'depositor', 0n);
      const request = { accountId, amount: euros(500n), requestId: 'deposit-1' };
      const first = await instance.accounts.deposit(request, olga);
      expect(first.balance).to.equal(500n);
      expect(await instance.accounts.deposit(request, olga)).to.deep.equal(first);
      const shouted = { ...request, accountId: accountId.toUpperCase() };
      expect(await instance.accounts.deposit(shouted, olga)).to.deep.equal(first);
      expect((await instance.accounts.get(accountId, olga)).balance).to.equal(500n);
      expect(await breachesIn(instance)).to.deep.equal([]);
    });

    it('takes effect once when the same request is sent ten times concurrently', async () => {
      const { accountId } = await accountWith(instance, 'hasty', 0n);
      const request = { accountId, amount: euros(7n), requestId: 'hasty' };
      const sent = Array.from({ length: 10 }, () => instance.accounts.deposit(request, olga));
      const codes = await Promise.all(sent.map((one) => one.then(() => 'OK').catch((error) => error.code)));
      expect(codes).to.include('OK');
      expect(codes.filter((code) => code !== 'OK' && code !== 'REQUEST_IN_PROGRESS')).to.deep.equal([]);
      expect((await instance.accounts.get(accountId, olga)).balance).to.equal(7n);
    });

    it('rejects amounts of 0 and below and invalid currencies, and reports all violations together', async () => {
      const bad = (minorUnits: bigint) =>
        instance.accounts.deposit(
          { accountId: 'nonsense', amount: { minorUnits, currencyCode: 'XYZ1' }, requestId: '\0' },
          olga,
        );
      const faults = ['account_id', 'amount.currency_code', 'amount.minor_units', 'request_id'];
      for (const minorUnits of [0n, -1n, -(2n ** 63n)]) {
        expect(await violatedFieldsOf(bad(minorUnits))).to.deep.equal(faults);
      }
      const none = { accountId: randomUUID(), amount: undefined, requestId: 'x' };
      expect(await violatedFieldsOf(instance.accounts.deposit(none, olga))).to.deep.equal(['amount']);
    });

    it('rejects another currency than the account’s', async () => {
      const { accountId } = await accountWith(instance, 'euro-only', 0n);
      const request = { accountId, amount: { minorUnits: 1n, currencyCode: 'USD' }, requestId: 'usd' };
      expect(await violatedFieldsOf(instance.accounts.deposit(request, olga))).to.deep.equal([
        'amount.currency_code',
      ]);
    });

    it('accepts a balance of the largest int64, and rejects one unit more', async () => {
      const { accountId } = await accountWith(instance, 'rich', MINOR_UNITS_MAX);
      expect((await instance.accounts.get(accountId, olga)).balance).to.equal(MINOR_UNITS_MAX);
      const request = { accountId, amount: euros(1n), requestId: 'one-more' };
      expect(await violatedFieldsOf(instance.accounts.deposit(request, olga))).to.deep.equal([
        'amount.minor_units',
      ]);
      expect(await breachesIn(instance)).to.deep.equal([]);
    });

    it('moves no money when the operator is revoked while the transaction runs', async () => {
      const { accountId } = await accountWith(instance, 'untouched', 0n);
      const revoked = callerOf('olga', {
        isOperator: true,
        stillAllowed: () => {
          throw new PaymentError('TOKEN_REVOKED', 'the token was revoked');
        },
      });
      const request = { accountId, amount: euros(1n), requestId: 'revoked' };
      expect(await codeOf(instance.accounts.deposit(request, revoked))).to.equal('TOKEN_REVOKED');
      expect((await instance.accounts.get(accountId, olga)).balance).to.equal(0n);
      expect((await instance.accounts.deposit(request, olga)).balance).to.equal(1n);
    });

    it('moves no money when the revocation state may become stale before the commit', async () => {
      const { accountId } = await accountWith(instance, 'slow', 0n);
      const reliance = [1_000, 0, 1_000, 0];
      const fading = callerOf('olga', {
        stillAllowed: () => {
          const ms = reliance.shift();
          if (ms === undefined) throw new PaymentError('REVOCATION_STATE_STALE', 'the list is stale');
          return ms;
        },
      });
      const request = { accountId, amount: euros(1n), requestId: 'fading' };
      expect(await codeOf(instance.accounts.deposit(request, fading))).to.equal('REVOCATION_STATE_STALE');
      expect((await instance.accounts.get(accountId, olga)).balance).to.equal(0n);
    });
  });

  describe('listEntries', () => {
    it('pages through the entries, newest first', async () => {
      const { accountId } = await accountWith(instance, 'lister', 0n);
      for (const minorUnits of [1n, 2n, 3n, 4n, 5n]) {
        await instance.accounts.deposit(
          { accountId, amount: euros(minorUnits), requestId: randomUUID() },
          olga,
        );
      }
      const seen: bigint[] = [];
      for (let pageToken = '', first = true; first || pageToken !== ''; first = false) {
        const page = await instance.accounts.listEntries(
          { accountId, pageSize: 2, pageToken, filter: '' },
          callerOf('lister'),
        );
        expect(page.entries.length).to.be.at.most(2);
        seen.push(...page.entries.map(({ amount }) => amount.minorUnits));
        pageToken = page.nextPageToken;
      }
      expect(seen).to.deep.equal([5n, 4n, 3n, 2n, 1n]);
    });

    it('returns the kind and the payment of an entry', async () => {
      const { accountId } = await accountWith(instance, 'curious', 9n);
      const { entries } = await instance.accounts.listEntries(
        { accountId, pageSize: 0, pageToken: '', filter: '' },
        callerOf('curious'),
      );
      expect(entries).to.have.lengthOf(1);
      expect(entries[0]).to.deep.include({ amount: euros(9n), kind: 'DEPOSIT', paymentId: undefined });
    });

    it('rejects a forged page token and a negative page size', async () => {
      const { accountId } = await accountWith(instance, 'inventor', 0n);
      const list = (page: { pageSize: number; pageToken: string; filter: string }) =>
        instance.accounts.listEntries({ accountId, ...page }, callerOf('inventor'));
      expect(await violatedFieldsOf(list({ pageSize: 0, pageToken: 'WyInIl0', filter: '' }))).to.deep.equal([
        'page_token',
      ]);
      expect(await violatedFieldsOf(list({ pageSize: -1, pageToken: '', filter: '' }))).to.deep.equal([
        'page_size',
      ]);
    });

    it('returns NOT_FOUND for the entries of another user’s account, except to operators', async () => {
      const { accountId } = await accountWith(instance, 'private', 1n);
      const page = { accountId, pageSize: 0, pageToken: '', filter: '' };
      expect(await codeOf(instance.accounts.listEntries(page, callerOf('stranger')))).to.equal('NOT_FOUND');
      expect((await instance.accounts.listEntries(page, olga)).entries).to.have.lengthOf(1);
    });
  });
});
