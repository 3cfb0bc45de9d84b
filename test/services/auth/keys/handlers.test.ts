/** Tests of the handlers of keys, on stand-ins for the commands. */

import { errorOf } from '@portcullis/guard/client';
import { networkOfPeer } from '@portcullis/guard/networks';
import { expect } from 'chai';
import {
  type KeyPurpose,
  KeyPurpose as PurposeMessage,
  KeyState as StateMessage,
} from '../../../../proto/gen/auth/v1/key_service.js';
import { createKeyHandlers, createKeySetHandlers } from '../../../../services/auth/keys/handlers.js';
import type { KeyLife, Rotation } from '../../../../services/auth/keys/key-life.js';
import type { KeyRecord } from '../../../../services/auth/records/keys.js';
import { rejectionOf } from '../../../support/outcomes.js';
import { CALL_PEER, CALLER, callHandler } from '../handler-call.js';

const unexpected = () => Promise.reject(new TypeError('not the expected command'));
const noKeyLife: KeyLife = {
  list: unexpected,
  rotate: unexpected,
  signingSince: unexpected,
  maintain: unexpected,
};

const key = (over: Partial<KeyRecord> = {}): KeyRecord => ({
  kid: 'one',
  algorithm: 'EdDSA',
  purpose: 'token',
  state: 'signing',
  createTime: new Date(1000),
  publishTime: new Date(2000),
  signTime: undefined,
  stopTime: undefined,
  retireTime: undefined,
  ...over,
});

describe('the handlers of keys', () => {
  it('list every key with its purpose, its state and its times', async () => {
    const keys = [
      key({ state: 'next' }),
      key({ kid: 'two', purpose: 'broadcast' }),
      key({ state: 'verify-only' }),
      key({ state: 'retired', retireTime: new Date(3000) }),
    ];
    let received: unknown;
    const { listKeys } = createKeyHandlers({
      keyLife: {
        ...noKeyLife,
        list: async (request) => {
          received = request;
          return { keys, nextPageToken: 'more' };
        },
      },
    });
    const request = { pageSize: 4, pageToken: 'first' };
    const response = await callHandler(listKeys, request);
    expect(received).to.deep.equal(request);
    expect(response.nextPageToken).to.equal('more');
    expect(response.keys.map(({ purpose, state }) => [purpose, state])).to.deep.equal([
      [PurposeMessage.KEY_PURPOSE_TOKEN, StateMessage.KEY_STATE_NEXT],
      [PurposeMessage.KEY_PURPOSE_BROADCAST, StateMessage.KEY_STATE_SIGNING],
      [PurposeMessage.KEY_PURPOSE_TOKEN, StateMessage.KEY_STATE_VERIFY_ONLY],
      [PurposeMessage.KEY_PURPOSE_TOKEN, StateMessage.KEY_STATE_RETIRED],
    ]);
    const { purpose: _, state: __, ...plain } = key({ kid: 'two' });
    expect(response.keys[1]).to.deep.include(plain);
  });

  describe('rotate a key', () => {
    const rotation: Rotation = { signingKey: key({ kid: 'new' }), formerKey: key({ state: 'verify-only' }) };
    const purpose = PurposeMessage.KEY_PURPOSE_TOKEN;
    const request = { purpose, emergency: true, reason: 'leaked', requestId: 'id' };
    let received: { readonly purpose?: string; readonly actor?: string }[] = [];
    const rotateTo = (result: Rotation) => {
      received = [];
      return createKeyHandlers({
        keyLife: {
          ...noKeyLife,
          rotate: async (asked) => {
            received.push(asked);
            return result;
          },
        },
      }).rotateKey;
    };

    it('of the requested purpose in the name of the caller', async () => {
      const handler = rotateTo(rotation);
      for (const [asked, expected] of [
        [PurposeMessage.KEY_PURPOSE_UNSPECIFIED, 'token'],
        [PurposeMessage.KEY_PURPOSE_TOKEN, 'token'],
        [PurposeMessage.KEY_PURPOSE_BROADCAST, 'broadcast'],
        [PurposeMessage.KEY_PURPOSE_RECEIPT, 'receipt'],
      ] as const) {
        await callHandler(handler, { ...request, purpose: asked });
        const by = { actor: CALLER.subject, network: networkOfPeer(CALL_PEER) };
        expect(received.at(-1)).to.deep.equal({ ...request, purpose: expected, ...by });
      }
    });

    it('only with a request id and a known purpose', async () => {
      const handler = rotateTo(rotation);
      for (const over of [{ requestId: '' }, { purpose: 9 as KeyPurpose }]) {
        const error = await rejectionOf(callHandler(handler, { ...request, ...over }));
        expect(errorOf(error).reason).to.equal('FIELD_INVALID');
      }
      expect(received).to.deep.equal([]);
    });

    it('and return both keys, with the revocation if there was one', async () => {
      const routine = await callHandler(rotateTo(rotation), request);
      expect([routine.signingKey?.kid, routine.signingKey?.state]).to.deep.equal([
        'new',
        StateMessage.KEY_STATE_SIGNING,
      ]);
      expect([routine.formerKey?.kid, routine.formerKey?.state]).to.deep.equal([
        'one',
        StateMessage.KEY_STATE_VERIFY_ONLY,
      ]);
      expect(routine).to.include({ sequence: 0n, enforcedEverywhereBy: undefined });
      const revocation = { sequence: 5n, enforcedEverywhereBy: new Date(4000) };
      expect(await callHandler(rotateTo({ ...rotation, revocation }), request)).to.include(revocation);
    });
  });

  it('publish the epoch and the keys of tokens, not those of broadcasts', async () => {
    const published = { kid: 'one', algorithm: 'EdDSA', jwk: '{}' };
    const [epoch, version] = [Buffer.from('epoch'), Buffer.from('version')];
    const { getKeys } = createKeySetHandlers({
      publicKeys: {
        read: async () => ({
          epoch,
          keySet: { version, keys: [published] },
          broadcastKeys: [{ ...published, kid: 'two' }],
        }),
      },
    });
    expect(await callHandler(getKeys, {})).to.deep.equal({ epoch, keySet: { version, keys: [published] } });
  });
});
