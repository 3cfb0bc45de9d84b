/** The handlers of EvidenceService: they translate between messages and the domain. */

import type { ServiceHandlers } from '@portcullis/guard';
import type { EvidenceServiceService } from '../../../proto/gen/auth/v1/evidence_service.js';
import { receiptJwks } from './jwks.js';
import type { KeptReceipt, Receipts } from './receipts.js';

export function createEvidenceHandlers({
  receipts,
}: {
  readonly receipts: Pick<Receipts, 'export' | 'list' | 'keys'>;
}): ServiceHandlers<EvidenceServiceService> {
  return {
    exportReceipt: ({ epoch, sequence }) => receipts.export(epoch, sequence),
    listReceipts: async (request) => {
      const { receipts: page, nextPageToken } = await receipts.list(request);
      return { receipts: page.map(messageOf), nextPageToken };
    },
    getReceiptKeys: async () => ({ jwks: JSON.stringify(receiptJwks(await receipts.keys())) }),
  };
}

function messageOf({ epoch, sequence, revocation }: KeptReceipt) {
  const { kind, target, actor, reason, revoke_time: revokeTime } = revocation;
  return { epoch, sequence, kind, target, actor, reason, revokeTime: new Date(revokeTime) };
}
