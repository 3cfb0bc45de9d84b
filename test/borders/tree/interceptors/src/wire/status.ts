// room: wire is the lowest room of the library
import './connection.js';
import '../errors.js';
import '../../gen/google/rpc/status.js';
import '@grpc/grpc-js';
import '../token/claims.js'; // refused: noRestrictedImports
import '../server/guard.js'; // refused: noRestrictedImports
import 'jose'; // refused: noRestrictedImports

export const isSecure = (credentials: { _isSecure(): boolean }): boolean => credentials._isSecure(); // refused: plugin
export const stream = (call: { nextCall: { end: number } }): number => call.nextCall.end; // refused: plugin
export const servers = (server: object): unknown => Reflect.get(server, 'http2Servers'); // refused: plugin
export const peer = (call: object): { peer: string } => call as { peer: string }; // refused: plugin
