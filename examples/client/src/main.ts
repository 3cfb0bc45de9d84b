import { readFileSync } from 'node:fs';
import { credentials } from '@grpc/grpc-js';
import { authenticate, channelOptionsFor, createServiceTokenSource } from '@portcullis/guard/client';
import { GreeterServiceClient } from '../gen/greeter/v1/greeter.js';
import { greetAll } from './worker.js';

const {
  ISSUER = '',
  AUTH_ADDRESS = '',
  CLIENT_ID = 'worker',
  CLIENT_KEY_FILE = '',
  GREETER_ADDRESS = 'localhost:50060',
} = process.env;

const plaintext = credentials.createInsecure(); // on this machine; elsewhere createSsl
const tokens = createServiceTokenSource({
  address: AUTH_ADDRESS,
  credentials: plaintext,
  issuer: ISSUER,
  clientId: CLIENT_ID,
  clientKey: readFileSync(CLIENT_KEY_FILE, 'utf8'),
  audiences: ['greeter'],
});
const greeter = new GreeterServiceClient(GREETER_ADDRESS, plaintext, {
  ...channelOptionsFor({ address: GREETER_ADDRESS, credentials: plaintext }),
  interceptors: [authenticate(tokens)],
});

console.log((await greetAll(greeter, process.argv.slice(2))).join('\n'));
greeter.close();
tokens.close();
