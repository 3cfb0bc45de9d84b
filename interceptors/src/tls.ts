/** `@portcullis/guard/tls`: certificates that follow their files, for channels and listeners. */

export {
  CLIENT_AUTH_MODES,
  type ClientAuth,
  channelCredentialsFrom,
  serverCredentialsFrom,
} from './tls/credentials.js';
export {
  type TlsFault,
  type TlsFiles,
  TlsFilesError,
  type TlsLog,
  type TlsWatch,
  tlsFaultsOf,
  watchTlsFiles,
} from './tls/tls-files.js';
