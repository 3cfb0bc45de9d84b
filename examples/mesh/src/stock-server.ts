import { readFileSync } from 'node:fs';
import { credentials, Server, ServerCredentials } from '@grpc/grpc-js';
import { createGuard } from '@portcullis/guard';
import { protoMetadata, StockServiceService } from '../gen/stock/v1/stock.js';
import { createStock } from './stock.js';

const {
  ISSUER = '',
  AUTH_ADDRESS = '',
  NATS_URL = '',
  NATS_NKEY_FILE = '',
  CLIENT_KEY_FILE = '',
} = process.env;

const guard = await createGuard({
  issuer: ISSUER,
  audience: 'stock',
  auth: {
    address: AUTH_ADDRESS,
    credentials: credentials.createInsecure(), // for an issuer on this machine; elsewhere createSsl
    clientId: 'stock',
    clientKey: readFileSync(CLIENT_KEY_FILE, 'utf8'),
  },
  nats: { url: NATS_URL, files: { nkeyFile: NATS_NKEY_FILE } },
});

const server = new Server({ interceptors: [guard.interceptor] });
guard.addService(server, StockServiceService, protoMetadata, createStock(new Map([['lamp', 3]])));

server.bindAsync('localhost:50062', ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`listening on port ${port}`);
});
