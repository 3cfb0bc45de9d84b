// room: interceptors/errors and interceptors/clock
import './errors.js'; // refused: noRestrictedImports

export const wallMs = (): number => Date.now();
