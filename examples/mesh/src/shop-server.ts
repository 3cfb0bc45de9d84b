import { readFileSync } from 'node:fs';
import { credentials, Server, ServerCredentials } from '@grpc/grpc-js';
import { createGuard } from '@portcullis/guard';
import { channelOptionsFor, createExchange } from '@portcullis/guard/client';
import { protoMetadata, ShopServiceService } from '../gen/shop/v1/shop.js';
import { StockServiceClient } from '../gen/stock/v1/stock.js';
import { createShop } from './shop.js';

const {
  ISSUER = '',
  AUTH_ADDRESS = '',
  NATS_URL = '',
  NATS_NKEY_FILE = '',
  CLIENT_KEY_FILE = '',
  STOCK_ADDRESS = 'localhost:50062',
} = process.env;

const plaintext = credentials.createInsecure(); // on this machine; elsewhere createSsl
const auth = {
  address: AUTH_ADDRESS,
  credentials: plaintext,
  clientId: 'shop',
  clientKey: readFileSync(CLIENT_KEY_FILE, 'utf8'),
};
const guard = await createGuard({
  issuer: ISSUER,
  audience: 'shop',
  auth,
  nats: { url: NATS_URL, files: { nkeyFile: NATS_NKEY_FILE } },
});
const exchange = createExchange({ ...auth, issuer: ISSUER });
const stock = new StockServiceClient(STOCK_ADDRESS, plaintext, {
  ...channelOptionsFor({ address: STOCK_ADDRESS, credentials: plaintext }),
});

const server = new Server({ interceptors: [guard.interceptor] });
guard.addService(server, ShopServiceService, protoMetadata, createShop(stock, exchange));

server.bindAsync('localhost:50061', ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`listening on port ${port}`);
});
