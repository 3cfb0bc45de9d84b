/** The catalogue of bad tokens: each is refused, and for its own reason. */

import { Client, type Server } from '@grpc/grpc-js';
import { type Guard, native } from '@portcullis/guard';
import { type BadTokenName, createTestKit, type TestKit } from '@portcullis/guard/testing';
import { expect } from 'chai';
import { callEcho, ECHO, echoHandlers, echoSchema, Trace } from '../../support/echo.js';
import { refusalOf } from '../../support/outcomes.js';

/** The fault for which the guard rejects each token, as its observer gets it; undefined where it gets none. */
const FAULTS: Readonly<Record<BadTokenName, string | undefined>> = {
  notAToken: 'form',
  opaque: 'form',
  algNone: 'form',
  algNoneSigned: 'signature',
  hmacWithPublicKey: 'signature',
  wrongAlgorithm: 'signature',
  wrongKey: 'signature',
  unknownKey: 'kid',
  noKeyId: 'form',
  embeddedKey: 'form',
  keyUrl: 'form',
  criticalHeader: 'form',
  wrongType: 'form',
  noType: 'form',
  wrongIssuer: 'iss',
  wrongAudience: 'aud',
  expired: undefined,
  notYetValid: 'nbf',
  issuedInTheFuture: 'iat',
  livesTooLong: 'exp',
  neverExpires: 'exp',
  noSubject: 'sub',
  noTokenId: 'jti',
  stolenFromCertificate: 'cnf',
  duplicateClaim: 'payload',
  payloadNotJson: 'payload',
  changedPayload: 'signature',
  changedSignature: 'signature',
  noSignature: 'form',
  twoSegments: 'form',
  twoSignatures: 'form',
  jsonSerialization: 'form',
  brokenBase64: 'form',
  paddedBase64: 'form',
  respeltSignature: 'form',
  tooLong: 'form',
};

describe('the bad tokens of the kit', () => {
  let kit: TestKit;
  const faults: string[] = [];

  beforeEach(async () => {
    faults.length = 0;
    const observer = { tokenInvalid: (fault: string) => void faults.push(fault) };
    kit = await createTestKit({ audience: 'echo', observer });
  });
  afterEach(() => kit.close());

  const trace = new Trace();
  const addEcho = (server: Server, guard: Guard): void =>
    guard.addService(server, ECHO, echoSchema(), native(echoHandlers(trace)));

  const reasonOf = (name: string): string => (name === 'expired' ? 'TOKEN_EXPIRED' : 'TOKEN_INVALID');

  it('are refused on the wire, without a handler, while the token that they are made of is admitted', async () => {
    const served = await kit.serve(addEcho);
    const ada = kit.user({ scopes: ['echo.call'] });
    for (const [name, token] of Object.entries(kit.badTokens(ada))) {
      const { reason } = await refusalOf(callEcho(served.client(Client, token)));
      expect(reason, name).to.equal(reasonOf(name));
    }
    expect(trace.started).to.equal(0);
    await callEcho(served.client(Client, ada));
    expect(trace.started).to.equal(1);
  });

  it('have one fault each, the one that their name says', async () => {
    await kit.serve(addEcho);
    const ada = kit.user({ scopes: ['echo.call'] });
    const found: Record<string, string | undefined> = {};
    for (const [name, token] of Object.entries(kit.badTokens(ada))) {
      faults.length = 0;
      const matrix = await kit.matrix({ [name]: token });
      expect(matrix['/test.v1.EchoService/Unary']?.[name], name).to.equal(reasonOf(name));
      expect(new Set(faults), name).to.have.property('size').that.is.at.most(1);
      found[name] = faults[0];
    }
    expect(found).to.deep.equal(FAULTS);
  });

  it('are refused as well where the rule of the method admits every caller', async () => {
    const services = [{ definition: ECHO, rules: echoSchema({ ...emptyRules() }) }];
    const matrix = await kit.matrix({ user: kit.user(), ...kit.badTokens() }, { services });
    for (const { user, ...verdicts } of Object.values(matrix)) {
      expect(user).to.equal('ADMITTED');
      for (const [name, verdict] of Object.entries(verdicts)) expect(verdict, name).to.equal(reasonOf(name));
    }
  });
});

function emptyRules() {
  const rule = {
    public: false,
    scopes: [],
    roles: [],
    caller: 0 as const,
    maxAuthAge: undefined,
    onStale: 0 as const,
    maxRequestBytes: 0,
  };
  return Object.fromEntries(Object.keys(ECHO).map((name) => [name, rule]));
}
