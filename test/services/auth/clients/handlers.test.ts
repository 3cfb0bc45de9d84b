/** Tests of the handlers of clients, on stand-ins for the commands. */

import { errorOf } from '@portcullis/guard/client';
import { networkOfPeer } from '@portcullis/guard/networks';
import { expect } from 'chai';
import {
  type AddClientCredentialRequest,
  ClientAuthentication,
  ClientState,
  type RegisteredClient,
} from '../../../../proto/gen/auth/v1/client_service.js';
import type { Clients } from '../../../../services/auth/clients/clients.js';
import { createClientHandlers } from '../../../../services/auth/clients/handlers.js';
import { etagOf } from '../../../../services/auth/clients/update-client.js';
import type { Client, StoredCredential } from '../../../../services/auth/records/clients.js';
import { rejectionOf } from '../../../support/outcomes.js';
import { CALL_PEER, CALLER, callHandler } from '../handler-call.js';

const unexpected = () => Promise.reject(new TypeError('not the expected command'));
const noClients: Clients = {
  create: unexpected,
  get: unexpected,
  list: unexpected,
  update: unexpected,
  addCredential: unexpected,
  removeCredential: unexpected,
  disable: unexpected,
  enable: unexpected,
  delete: unexpected,
};

const secret: StoredCredential = {
  credentialId: 'secret',
  createTime: new Date(1000),
  kind: 'secret',
  hash: 'the hash',
};
const key: StoredCredential = {
  credentialId: 'key',
  createTime: new Date(2000),
  kind: 'public-key',
  pem: 'the key',
};
const client = (over: Partial<Client> = {}): Client => ({
  clientId: 'shop',
  generation: 3n,
  credentials: [secret, key],
  audiences: ['auth'],
  scopes: ['auth.sync'],
  exchangeAudiences: ['inventory'],
  exchangeScopes: ['inventory.read'],
  certificateBound: true,
  brokerKey: 'UKEY',
  disabled: false,
  createTime: new Date(500),
  ...over,
});
const messageOf = (of: Client): RegisteredClient => ({
  clientId: 'shop',
  publicKeyPem: 'the key',
  createTime: new Date(500),
  authentication: ClientAuthentication.CLIENT_AUTHENTICATION_PRIVATE_KEY_JWT,
  audiences: ['auth'],
  scopes: ['auth.sync'],
  exchangeAudiences: ['inventory'],
  exchangeScopes: ['inventory.read'],
  certificateBound: true,
  brokerPublicKey: 'UKEY',
  state: ClientState.CLIENT_STATE_ACTIVE,
  credentials: [
    {
      credentialId: 'secret',
      createTime: new Date(1000),
      authentication: ClientAuthentication.CLIENT_AUTHENTICATION_SECRET,
      publicKeyPem: '',
    },
    {
      credentialId: 'key',
      createTime: new Date(2000),
      authentication: ClientAuthentication.CLIENT_AUTHENTICATION_PRIVATE_KEY_JWT,
      publicKeyPem: 'the key',
    },
  ],
  etag: etagOf(of),
});

describe('the handlers of clients', () => {
  let received: unknown;
  /** Handlers on a command that notes its argument. */
  const handlersWith = <Name extends keyof Clients>(
    name: Name,
    result: Awaited<ReturnType<Clients[Name]>>,
  ) => {
    received = undefined;
    const command = async (request: unknown) => {
      received = request;
      return result;
    };
    return createClientHandlers({ clients: { ...noClients, [name]: command } });
  };
  const by = { requestId: 'id', actor: CALLER.subject, network: networkOfPeer(CALL_PEER) };
  const receipt = { sequence: 7n, enforcedEverywhereBy: new Date(6000) };
  const noReceipt = { sequence: 0n, enforcedEverywhereBy: undefined };

  it('return a client with its credentials, without its hashes and its generation', async () => {
    const { getClient } = handlersWith('get', client());
    expect(await callHandler(getClient, { clientId: 'shop' })).to.deep.equal({ client: messageOf(client()) });
    expect(received).to.equal('shop');
  });

  it('return how a client authenticates, whether it is disabled, and that its scopes are not limited', async () => {
    for (const [over, message] of [
      [
        { credentials: [secret] },
        { authentication: ClientAuthentication.CLIENT_AUTHENTICATION_SECRET, publicKeyPem: '' },
      ],
      [
        { credentials: [] },
        { authentication: ClientAuthentication.CLIENT_AUTHENTICATION_NONE, publicKeyPem: '' },
      ],
      [{ disabled: true }, { state: ClientState.CLIENT_STATE_DISABLED }],
      [{ exchangeScopes: undefined }, { exchangeScopes: [] }],
    ] as const) {
      const { getClient } = handlersWith('get', client(over));
      expect((await callHandler(getClient, { clientId: 'shop' })).client).to.deep.include(message);
    }
  });

  it('return a client that the version before has stored without credentials', async () => {
    const { credentials: _, ...former } = client();
    const { enableClient } = handlersWith('enable', former as Client);
    const response = await callHandler(enableClient, { clientId: 'shop', requestId: 'id' });
    expect(response.client).to.deep.include({
      credentials: [],
      etag: etagOf(client({ credentials: [] })),
      authentication: ClientAuthentication.CLIENT_AUTHENTICATION_NONE,
    });
    expect(received).to.deep.equal({ ...by, clientId: 'shop' });
  });

  it('list clients page by page', async () => {
    const page = { clients: [client(), client({ disabled: true })], nextPageToken: 'more' };
    const request = { pageSize: 2, pageToken: 'first' };
    const response = await callHandler(handlersWith('list', page).listClients, request);
    expect(received).to.deep.equal(request);
    expect(response.nextPageToken).to.equal('more');
    expect(response.clients.map(({ state }) => state)).to.deep.equal([
      ClientState.CLIENT_STATE_ACTIVE,
      ClientState.CLIENT_STATE_DISABLED,
    ]);
  });

  it('create a client in the name of the caller, with the credential of the request', async () => {
    const rights = {
      audiences: ['auth'],
      scopes: [],
      exchangeAudiences: [],
      exchangeScopes: [],
      certificateBound: true,
      brokerPublicKey: 'UKEY',
    };
    for (const [given, credential] of [
      [
        { $case: 'publicKeyPem', value: 'pem' },
        { kind: 'public-key', pem: 'pem' },
      ],
      [
        { $case: 'clientSecret', value: 'text' },
        { kind: 'secret', secret: 'text' },
      ],
      [undefined, undefined],
    ] as const) {
      const { createClient } = handlersWith('create', client());
      const request = { ...rights, clientId: 'shop', requestId: 'id', credential: given };
      expect(await callHandler(createClient, request)).to.deep.equal({ client: messageOf(client()) });
      expect(received).to.deep.equal({ ...rights, ...by, clientId: 'shop', credential });
    }
  });

  it('add a credential in the name of the caller, and return a secret that auth has made', async () => {
    const added = { client: client(), credentialId: 'key', clientSecret: 'pcs_' };
    for (const [given, credential] of [
      [{ $case: 'generatedSecret', value: true }, { kind: 'generated-secret' }],
      [
        { $case: 'clientSecret', value: 'text' },
        { kind: 'secret', secret: 'text' },
      ],
    ] as [AddClientCredentialRequest['credential'], object][]) {
      const { addClientCredential } = handlersWith('addCredential', added);
      const request = { clientId: 'shop', requestId: 'id', credential: given };
      const response = await callHandler(addClientCredential, request);
      expect(response).to.deep.equal({ ...added, client: messageOf(client()) });
      expect(received).to.deep.equal({ ...by, clientId: 'shop', credential });
    }
  });

  it('remove a credential in the name of the caller, with a receipt if tokens were revoked', async () => {
    const request = {
      clientId: 'shop',
      credentialId: 'key',
      revokeTokens: true,
      reason: 'leaked',
      requestId: 'id',
    };
    for (const [revocation, fields] of [
      [receipt, receipt],
      [undefined, noReceipt],
    ] as const) {
      const { removeClientCredential } = handlersWith('removeCredential', { client: client(), revocation });
      const response = await callHandler(removeClientCredential, request);
      expect(response).to.deep.equal({ client: messageOf(client()), ...fields });
      expect(received).to.deep.equal({ ...request, ...by });
    }
  });

  it('update a client in the name of the caller, with a receipt if tokens were revoked', async () => {
    const { clientId, etag, audiences, scopes, exchangeAudiences, exchangeScopes, certificateBound } =
      messageOf(client());
    const request = {
      client: messageOf(client()),
      updateMask: ['scopes'] as string[] | undefined,
      reason: 'narrower',
      requestId: 'id',
    };
    for (const [updateMask, revocation, fields] of [
      [['scopes'], receipt, receipt],
      [undefined, undefined, noReceipt],
    ] as const) {
      const { updateClient } = handlersWith('update', { client: client(), revocation });
      const response = await callHandler(updateClient, {
        ...request,
        updateMask: updateMask && [...updateMask],
      });
      expect(response).to.deep.equal({ client: messageOf(client()), ...fields });
      expect(received).to.deep.include({ ...by, clientId, etag, reason: 'narrower' });
      expect(received)
        .to.have.property('updateMask')
        .that.deep.equals(updateMask ?? []);
      expect(received)
        .to.have.property('rights')
        .that.deep.includes({ audiences, scopes, exchangeAudiences, exchangeScopes, certificateBound });
    }
    const { updateClient } = handlersWith('update', { client: client(), revocation: undefined });
    const error = await rejectionOf(callHandler(updateClient, { ...request, client: undefined }));
    expect(errorOf(error).reason).to.equal('FIELD_INVALID');
    expect(received).to.equal(undefined);
  });

  it('disable or delete a client in the name of the caller, with a receipt', async () => {
    const request = { clientId: 'shop', reason: 'gone', requestId: 'id' };
    const { disableClient } = handlersWith('disable', { client: client({ disabled: true }), ...receipt });
    const disabled = await callHandler(disableClient, request);
    expect(disabled).to.deep.include(receipt);
    expect(disabled.client).to.deep.include({ state: ClientState.CLIENT_STATE_DISABLED });
    expect(received).to.deep.equal({ ...request, ...by });
    const { deleteClient } = handlersWith('delete', receipt);
    expect(await callHandler(deleteClient, request)).to.deep.equal(receipt);
    expect(received).to.deep.equal({ ...request, ...by });
  });
});
