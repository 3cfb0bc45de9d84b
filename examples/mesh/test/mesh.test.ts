import { strict as assert } from 'node:assert';
import { promisify } from 'node:util';
import { errorOf } from '@portcullis/guard/client';
import { createTestKit, type Persona, type Served, type TestKit } from '@portcullis/guard/testing';
import { ShopServiceClient, ShopServiceService, protoMetadata as shopRules } from '../gen/shop/v1/shop.js';
import {
  StockServiceClient,
  StockServiceService,
  protoMetadata as stockRules,
} from '../gen/stock/v1/stock.js';
import { createShop } from '../src/shop.js';
import { createStock, type Taken } from '../src/stock.js';

describe('a shop that takes from the stock for its callers', () => {
  let kit: TestKit;
  let shop: Served;
  let stock: Served;
  let taken: Taken[];

  beforeEach(async () => {
    taken = [];
    kit = await createTestKit({ audience: 'shop' });
    const stockGuard = await kit.createGuard({ audience: 'stock' });
    const stockHandlers = createStock(new Map([['lamp', 1]]), (one) => taken.push(one));
    stock = await kit.serve(
      (server, guard) => guard.addService(server, StockServiceService, stockRules, stockHandlers),
      { guard: stockGuard },
    );
    const stockClient = stock.client(StockServiceClient);
    shop = await kit.serve((server, guard) =>
      guard.addService(server, ShopServiceService, shopRules, createShop(stockClient, kit.exchange('shop'))),
    );
  });
  afterEach(() => kit.close());

  const buy = (user: Persona, item = 'lamp'): Promise<string> =>
    promisify((done: (error: Error | null, text: string) => void) =>
      shop.client(ShopServiceClient, user).buy({ item }, (error, response) => done(error, response?.text)),
    )();

  const reasonOf = (call: Promise<unknown>): Promise<string> =>
    call.then(
      () => 'ADMITTED',
      (error: unknown) => errorOf(error).reason,
    );

  it('calls the stock as the user', async () => {
    const ada = kit.user({ id: 'ada', scopes: ['shop.buy', 'stock.take'] });
    assert.equal(await buy(ada), 'You have bought a lamp, 0 are left.');
    assert.deepEqual(taken, [{ user: 'ada', through: 'shop', item: 'lamp' }]);
    assert.equal(await reasonOf(buy(ada)), 'SOLD_OUT');
  });

  it('does not get more at the stock than the user has', async () => {
    assert.equal(await reasonOf(buy(kit.user({ scopes: ['shop.buy'] }))), 'SCOPE_MISSING');
    assert.deepEqual(taken, []);
  });

  it("cannot be left out: the stock refuses the user's own token, and a token of the shop itself", async () => {
    const takeAs = (caller: Persona): Promise<unknown> =>
      promisify((done: (error: Error | null) => void) =>
        stock.client(StockServiceClient, caller).takeItem({ item: 'lamp' }, (error) => done(error)),
      )();
    const ada = kit.user({ scopes: ['shop.buy', 'stock.take'] });
    assert.equal(await reasonOf(takeAs(ada)), 'TOKEN_INVALID');
    const itself = kit.service('shop', { audiences: ['stock'], scopes: ['stock.take'] });
    assert.equal(await reasonOf(takeAs(itself)), 'CALLER_KIND');
    assert.equal(await reasonOf(takeAs(ada.through('shop', { audiences: ['stock'] }))), 'ADMITTED');
  });

  it('is refused at both when the session of the user is revoked', async () => {
    const ada = kit.user({ scopes: ['shop.buy', 'stock.take'] });
    const exchanged = ada.through('shop', { audiences: ['stock'] });
    await kit.revoke({ session: ada });
    assert.equal(await reasonOf(buy(ada)), 'TOKEN_REVOKED');
    const verdicts = await kit.matrix({ exchanged }, { guard: stock.guard });
    assert.deepEqual(verdicts, { '/stock.v1.StockService/TakeItem': { exchanged: 'TOKEN_REVOKED' } });
  });

  it('cannot act for anybody when the client of the shop is revoked', async () => {
    const exchanged = kit
      .user({ scopes: ['shop.buy', 'stock.take'] })
      .through('shop', { audiences: ['stock'] });
    await kit.revoke({ client: 'shop' });
    const verdicts = await kit.matrix({ exchanged }, { guard: stock.guard });
    assert.deepEqual(verdicts, { '/stock.v1.StockService/TakeItem': { exchanged: 'TOKEN_REVOKED' } });
  });
});
