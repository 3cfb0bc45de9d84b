/** The matrix: who may call what, decided by the guard without calls. */

import { createHash } from 'node:crypto';
import { Client, Metadata, type Server } from '@grpc/grpc-js';
import { type Guard, native } from '@portcullis/guard';
import { errorOf } from '@portcullis/guard/client';
import { createTestKit, formatMatrix, type TestKit } from '@portcullis/guard/testing';
import { expect } from 'chai';
import { callEcho, ECHO, ECHO_RULES, echoHandlers, echoSchema, identity, Trace } from '../../support/echo.js';
import { rejectionOf } from '../../support/outcomes.js';

const SERVICES = [{ definition: ECHO, rules: echoSchema() }];

describe('the matrix of the kit', () => {
  let kit: TestKit;
  let trace: Trace;

  beforeEach(async () => {
    kit = await createTestKit({ audience: 'echo' });
    trace = new Trace();
  });
  afterEach(() => kit.close());

  const addEcho = (server: Server, guard: Guard): void =>
    guard.addService(server, ECHO, echoSchema(), native(echoHandlers(trace)));

  const callers = () => ({
    anonymous: undefined,
    ada: kit.user({ scopes: ['echo.call', 'echo.more'], roles: ['operator'] }),
    late: kit.user({ scopes: ['echo.call'], loggedInSecondsAgo: 120 }),
    worker: kit.service('worker', { scopes: ['echo.call'] }),
    stranger: kit.user({ audiences: ['other'], scopes: ['echo.call'] }),
    forger: kit.badTokens().wrongKey,
  });

  it('names the verdict for every method and every caller, as a table to keep', async () => {
    const table = formatMatrix(await kit.matrix(callers(), { services: SERVICES }));
    expect(`\n${table}`).to.equal(`
                                   anonymous      ada          late           worker         stranger       forger
/test.v1.EchoService/Unary         TOKEN_MISSING  ADMITTED     ADMITTED       ADMITTED       TOKEN_INVALID  TOKEN_INVALID
/test.v1.EchoService/ClientStream  TOKEN_MISSING  ADMITTED     ADMITTED       ADMITTED       TOKEN_INVALID  TOKEN_INVALID
/test.v1.EchoService/ServerStream  TOKEN_MISSING  ADMITTED     ADMITTED       ADMITTED       TOKEN_INVALID  TOKEN_INVALID
/test.v1.EchoService/Bidi          TOKEN_MISSING  ADMITTED     ADMITTED       ADMITTED       TOKEN_INVALID  TOKEN_INVALID
/test.v1.EchoService/Public        ADMITTED       ADMITTED     ADMITTED       ADMITTED       ADMITTED       ADMITTED
/test.v1.EchoService/Stale         TOKEN_MISSING  ADMITTED     ADMITTED       ADMITTED       TOKEN_INVALID  TOKEN_INVALID
/test.v1.EchoService/StaleStream   TOKEN_MISSING  ADMITTED     ADMITTED       ADMITTED       TOKEN_INVALID  TOKEN_INVALID
/test.v1.EchoService/Services      TOKEN_MISSING  CALLER_KIND  CALLER_KIND    ADMITTED       TOKEN_INVALID  TOKEN_INVALID
/test.v1.EchoService/Users         TOKEN_MISSING  ADMITTED     ADMITTED       CALLER_KIND    TOKEN_INVALID  TOKEN_INVALID
/test.v1.EchoService/Operators     TOKEN_MISSING  ADMITTED     ROLE_MISSING   ROLE_MISSING   TOKEN_INVALID  TOKEN_INVALID
/test.v1.EchoService/TwoScopes     TOKEN_MISSING  ADMITTED     SCOPE_MISSING  SCOPE_MISSING  TOKEN_INVALID  TOKEN_INVALID
/test.v1.EchoService/Fresh         TOKEN_MISSING  ADMITTED     LOGIN_TOO_OLD  LOGIN_TOO_OLD  TOKEN_INVALID  TOKEN_INVALID
`);
    expect(trace.started).to.equal(0);
  });

  it('is what calls on the wire get', async () => {
    const served = await kit.serve(addEcho);
    const personas = callers();
    const matrix = await kit.matrix(personas);
    expect(Object.keys(matrix)).to.deep.equal(Object.values(ECHO).map(({ path }) => path));
    for (const [name, credential] of Object.entries(personas)) {
      const client = served.client(Client, credential);
      for (const { path, requestStream, responseStream } of Object.values(ECHO)) {
        const verdict = matrix[path]?.[name as keyof typeof personas];
        const isStream = requestStream || responseStream;
        const outcome = await (isStream ? streamOutcome(client, path) : unaryOutcome(client, path));
        expect(outcome, `${path} by ${name}`).to.equal(verdict);
      }
    }
  });

  it('follows revocations and the lease', async () => {
    await kit.serve(addEcho);
    const personas = { ada: kit.user({ scopes: ['echo.call'] }), bob: kit.user({ scopes: ['echo.call'] }) };
    const rowOf = async (method: string) => (await kit.matrix(personas))[`/test.v1.EchoService/${method}`];
    await kit.revoke({ user: personas.bob });
    expect(await rowOf('Unary')).to.deep.equal({ ada: 'ADMITTED', bob: 'TOKEN_REVOKED' });
    await kit.goStale();
    expect(await rowOf('Unary')).to.deep.equal({ ada: 'REVOCATION_STATE_STALE', bob: 'TOKEN_REVOKED' });
    expect(await rowOf('Stale')).to.deep.equal({ ada: 'ADMITTED', bob: 'TOKEN_REVOKED' });
  });

  it('gives a persona the certificate that its token is bound to, and the text of a token none', async () => {
    const certificateThumbprint = createHash('sha256').update('certificate').digest('base64url');
    const ada = kit.user({ scopes: ['echo.call'], certificateThumbprint });
    const matrix = await kit.matrix({ ada, thief: ada.token }, { services: SERVICES });
    expect(matrix['/test.v1.EchoService/Unary']).to.deep.equal({ ada: 'ADMITTED', thief: 'TOKEN_INVALID' });
  });

  it('says what is missing: methods, or a rule', async () => {
    const noMethods = await rejectionOf(kit.matrix({}));
    expect(noMethods).to.be.instanceOf(TypeError);
    expect(noMethods.message).to.match(/^the matrix has no methods: serve a service before/);
    const services = [{ definition: ECHO, rules: echoSchema({ ...ECHO_RULES, Fresh: undefined }) }];
    const noRule = await rejectionOf(kit.matrix({}, { services }));
    expect(noRule).to.be.instanceOf(TypeError);
    expect(noRule.message).to.match(/^\/test\.v1\.EchoService\/Fresh declares no access rule\. /);
  });
});

function unaryOutcome(client: Client, path: string): Promise<string> {
  return callEcho(client, new Metadata(), { method: path.slice(path.lastIndexOf('/') + 1) }).then(
    () => 'ADMITTED',
    (error: unknown) => errorOf(error).reason,
  );
}

/** A stream that a handler answers, or that ends without an error, was admitted. */
function streamOutcome(client: Client, path: string): Promise<string> {
  const stream = client.makeBidiStreamRequest(path, identity, identity, new Metadata());
  return new Promise((resolve) => {
    stream.on('data', () => resolve('ADMITTED'));
    stream.on('end', () => resolve('ADMITTED'));
    stream.on('error', (error) => resolve(errorOf(error).reason));
    stream.write(Buffer.from('a'));
    stream.end();
  }).then((outcome) => {
    stream.cancel();
    return String(outcome);
  });
}
