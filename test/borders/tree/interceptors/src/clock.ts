// room: interceptors/src/{errors,clock,log}
import './errors.js'; // refused: noRestrictedImports

export const wallMs = (): number => Date.now();
