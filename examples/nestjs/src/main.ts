import { readFileSync } from 'node:fs';
import { credentials } from '@grpc/grpc-js';
import { createGuard } from '@portcullis/guard';
import { createApp } from './app.js';

const {
  ISSUER = '',
  AUTH_ADDRESS = '',
  NATS_URL = '',
  NATS_NKEY_FILE = '',
  CLIENT_KEY_FILE = '',
} = process.env;

const ADDRESS = 'localhost:50063';

const guard = await createGuard({
  issuer: ISSUER,
  audience: 'greeter',
  auth: {
    address: AUTH_ADDRESS,
    credentials: credentials.createInsecure(), // for an issuer on this machine; elsewhere createSsl
    clientId: 'greeter',
    clientKey: readFileSync(CLIENT_KEY_FILE, 'utf8'),
  },
  nats: { url: NATS_URL, files: { nkeyFile: NATS_NKEY_FILE } },
});

const app = await createApp(guard, ADDRESS);
await app.listen();
console.log(`listening on ${ADDRESS}`);
