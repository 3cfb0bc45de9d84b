import { principalOf, type ServiceHandlers } from '@portcullis/guard';
import { declareErrors } from '@portcullis/guard/errors';
import type { StockServiceService } from '../gen/stock/v1/stock.js';

const StockError = declareErrors({ SOLD_OUT: 'FAILED_PRECONDITION' });

/** Who took an item, and which service asked for it. */
export interface Taken {
  readonly user: string;
  readonly through: string;
  readonly item: string;
}

/** The stock: it knows the user, although the shop calls. */
export function createStock(
  items: Map<string, number>,
  onTaken: (taken: Taken) => void = () => {},
): ServiceHandlers<StockServiceService> {
  return {
    takeItem: ({ item }, call) => {
      const left = (items.get(item) ?? 0) - 1;
      if (left < 0) throw new StockError('SOLD_OUT', `there is no ${item} left`);
      items.set(item, left);
      const { id, clientId } = principalOf(call);
      onTaken({ user: id, through: clientId, item });
      return { left };
    },
  };
}
