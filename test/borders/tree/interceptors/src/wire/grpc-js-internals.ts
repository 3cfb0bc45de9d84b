// room: wire is the lowest room of the library
import '../token/claims.js'; // refused: noRestrictedImports

export const isSecure = (credentials: { _isSecure(): boolean }): boolean => credentials._isSecure();
