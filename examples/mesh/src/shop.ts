import { Metadata } from '@grpc/grpc-js';
import { type AnyCall, type ServiceHandlers, signalOf } from '@portcullis/guard';
import { authenticate, type Exchange, errorOf } from '@portcullis/guard/client';
import { declareErrors } from '@portcullis/guard/errors';
import type { ShopServiceService } from '../gen/shop/v1/shop.js';
import type { StockServiceClient, TakeItemResponse } from '../gen/stock/v1/stock.js';

const ShopError = declareErrors({ SOLD_OUT: 'FAILED_PRECONDITION' });

/** Deadline of a call to the stock, in milliseconds. */
const STOCK_MS_MAX = 3_000;

/** The shop: it takes from the stock for its caller, with a token that is good for that alone. */
export function createShop(
  stock: StockServiceClient,
  exchange: Exchange,
): ServiceHandlers<ShopServiceService> {
  return {
    buy: async ({ item }, call) => {
      const { left } = await takeItem(stock, exchange, item, call);
      return { text: `You have bought a ${item}, ${left} are left.` };
    },
  };
}

function takeItem(
  stock: StockServiceClient,
  exchange: Exchange,
  item: string,
  call: AnyCall,
): Promise<TakeItemResponse> {
  const source = exchange.forCall(call, { audience: 'stock', scopes: ['stock.take'] });
  const options = { deadline: Date.now() + STOCK_MS_MAX, interceptors: [authenticate(source)] };
  const signal = signalOf(call);
  return new Promise((resolve, reject) => {
    const taking = stock.takeItem({ item }, new Metadata(), options, (error, response) => {
      signal.removeEventListener('abort', cancel);
      if (error === null) resolve(response);
      else reject(errorFor(error));
    });
    // When the user is revoked, the guard ends the call here, and with it the one to the stock.
    const cancel = (): void => taking.cancel();
    signal.addEventListener('abort', cancel, { once: true });
  });
}

/** Only what is about the order is passed on: other reasons are about tokens, which the shop's caller does not know. */
function errorFor(error: Error): Error {
  const { reason, message } = errorOf(error);
  if (reason === 'SOLD_OUT') return new ShopError('SOLD_OUT', message, { cause: error });
  if (reason === 'SCOPE_MISSING') {
    return new ShopError('SCOPE_MISSING', 'buying requires the scope stock.take', { cause: error });
  }
  return new ShopError('DEPENDENCY_UNAVAILABLE', 'the stock does not answer', { cause: error });
}
